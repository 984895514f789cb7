#include "datasets/datasets_store.h"

#include "db/row.h"

namespace lathe::datasets::store {

namespace {

std::string text(std::string_view view) {
  return std::string(view);
}

std::string like_pattern(std::string_view part) {
  std::string out = "%";
  for (const char c : part) {
    if (c == '%' || c == '_' || c == '\\') out += '\\';
    out += c;
  }
  return out + "%";
}

}  // namespace

void fields(Fields& f, DatasetRow& r) {
  f.field("id", r.id);
  f.field("user_id", r.user_id);
  f.field("name", r.name);
  f.field("description", r.description);
  f.field("is_public", r.is_public);
  f.field("created_at", r.created_at);
  f.field("updated_at", r.updated_at);
}

void fields(Fields& f, VersionRow& r) {
  f.field("id", r.id);
  f.field("dataset_id", r.dataset_id);
  f.field("version", r.version);
  f.field("description", r.description);
  f.field("scope", r.scope);
  f.field("path", r.path);
  f.field("state", r.state);
  f.field("size", r.size);
  f.field("file_count", r.file_count);
  f.field("created_at", r.created_at);
}

std::vector<DatasetRow> list(db::Transaction& tx, const Filter& filter) {
  std::string sql = "SELECT * FROM datasets WHERE 1 = 1";
  std::vector<db::Value> args;
  auto add = [&](db::Value value) {
    args.push_back(std::move(value));
    return "$" + std::to_string(args.size());
  };
  if (filter.user_id) sql += " AND (user_id = " + add(*filter.user_id) + " OR is_public = 1)";
  if (!filter.name.empty()) sql += " AND name LIKE " + add(like_pattern(filter.name)) + " ESCAPE '\\'";
  if (!filter.before.empty()) sql += " AND id < " + add(filter.before);
  sql += " ORDER BY id DESC LIMIT " + add(filter.limit);
  return db::select<DatasetRow>(tx, sql, std::move(args));
}

std::optional<DatasetRow> dataset(db::Transaction& tx, std::string_view id) {
  return db::select_one<DatasetRow>(tx, "SELECT * FROM datasets WHERE id = $1", {text(id)});
}

std::optional<DatasetRow> own_named(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  return db::select_one<DatasetRow>(tx, "SELECT * FROM datasets WHERE user_id = $1 AND name = $2",
                                    {text(user_id), text(name)});
}

std::optional<DatasetRow> named(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  if (auto own = own_named(tx, user_id, name)) return own;
  return db::select_one<DatasetRow>(
      tx, "SELECT * FROM datasets WHERE name = $1 AND is_public = 1 ORDER BY user_id, id LIMIT 1",
      {text(name)});
}

void add(db::Transaction& tx, const DatasetRow& row) {
  db::insert(tx, "datasets", row);
}

void update(db::Transaction& tx, const DatasetRow& row) {
  db::update(tx, "datasets", row);
}

void remove(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM dataset_versions WHERE dataset_id = $1", {text(id)});
  tx.execute("DELETE FROM datasets WHERE id = $1", {text(id)});
}

bool has_datasets(db::Transaction& tx, std::string_view user_id) {
  return !tx.query("SELECT id FROM datasets WHERE user_id = $1 LIMIT 1", {text(user_id)}).empty();
}

std::vector<VersionRow> versions(db::Transaction& tx, std::string_view dataset_id, std::string_view before,
                                 std::int64_t limit) {
  // No id is as great as this one: they are hexadecimal digits.
  return db::select<VersionRow>(
      tx, "SELECT * FROM dataset_versions WHERE dataset_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
      {text(dataset_id), before.empty() ? "g" : text(before), limit});
}

std::int64_t count_versions(db::Transaction& tx, std::string_view dataset_id) {
  return tx.query("SELECT COUNT(*) FROM dataset_versions WHERE dataset_id = $1", {text(dataset_id)})
      .integer(0, 0);
}

std::optional<VersionRow> version(db::Transaction& tx, std::string_view id) {
  return db::select_one<VersionRow>(tx, "SELECT * FROM dataset_versions WHERE id = $1", {text(id)});
}

std::optional<VersionRow> version_named(db::Transaction& tx, std::string_view dataset_id,
                                        std::string_view name) {
  return db::select_one<VersionRow>(tx,
                                    "SELECT * FROM dataset_versions WHERE dataset_id = $1 AND version = $2",
                                    {text(dataset_id), text(name)});
}

void add_version(db::Transaction& tx, const VersionRow& row) {
  db::insert(tx, "dataset_versions", row);
}

void remove_version(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM dataset_versions WHERE id = $1", {text(id)});
}

std::vector<std::string> unmeasured(db::Transaction& tx) {
  const auto rows = tx.query("SELECT id FROM dataset_versions WHERE state = 'measuring' ORDER BY id");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

void set_measured(db::Transaction& tx, std::string_view id, std::string_view state, std::int64_t size,
                  std::int64_t file_count) {
  tx.execute("UPDATE dataset_versions SET state = $1, size = $2, file_count = $3 WHERE id = $4",
             {text(state), size, file_count, text(id)});
}

}  // namespace lathe::datasets::store
