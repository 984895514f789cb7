#include "models/models_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

namespace lathe::models::store {

namespace {

db::Value text(std::string_view value) {
  return std::string(value);
}

/// Names are looked up whatever the case of their Latin letters, alike in every database.
std::string key_of(std::string_view name) {
  std::string out(name);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// The filter as conditions, and their arguments from $1 on.
struct Where {
  std::vector<std::string> conditions;
  std::vector<db::Value> args;

  explicit Where(const Filter& filter) {
    if (filter.user_id) add("user_id = {}", *filter.user_id);
    if (!filter.type.empty()) add("type = {}", filter.type);
    if (!filter.name.empty()) add("name_key LIKE {} ESCAPE '!'", pattern(key_of(filter.name)));
  }
  void add(fmt::format_string<std::string> condition, std::string value) {
    args.push_back(std::move(value));
    conditions.push_back(fmt::format(condition, fmt::format("${}", args.size())));
  }
  std::string sql() const {
    return conditions.empty() ? "" : fmt::format(" WHERE {}", fmt::join(conditions, " AND "));
  }
  std::string next(std::size_t further) const { return fmt::format("${}", args.size() + further); }

 private:
  static std::string pattern(const std::string& part) {
    std::string out = "%";
    for (const char c : part) {
      if (c == '%' || c == '_' || c == '!') out += '!';
      out += c;
    }
    return out + "%";
  }
};

/// `$1, $2, …`
std::string placeholders(std::size_t count) {
  std::vector<std::string> out;
  for (std::size_t i = 1; i <= count; ++i) out.push_back(fmt::format("${}", i));
  return fmt::format("{}", fmt::join(out, ", "));
}

std::vector<db::Value> texts(std::span<const std::string> values) {
  return {values.begin(), values.end()};
}

}  // namespace

void fields(Fields& f, ModelRow& row) {
  f.field("id", row.id);
  f.field("user_id", row.user_id);
  f.field("name", row.name);
  f.field("name_key", row.name_key);
  f.field("description", row.description);
  f.field("type", row.type);
  f.field("developer", row.developer);
  f.field("hyper_parameters", row.hyper_parameters);
  f.field("created_at", row.created_at);
  f.field("updated_at", row.updated_at);
}

void fields(Fields& f, VersionRow& row) {
  f.field("id", row.id);
  f.field("model_id", row.model_id);
  f.field("user_id", row.user_id);
  f.field("request_id", row.request_id);
  f.field("version", row.version);
  f.field("description", row.description);
  f.field("label", row.label);
  f.field("source", row.source);
  f.field("image", row.image);
  f.field("image_id", row.image_id);
  f.field("image_tag", row.image_tag);
  f.field("image_type", row.image_type);
  f.field("framework", row.framework);
  f.field("framework_style", row.framework_style);
  f.field("save_type", row.save_type);
  f.field("save_path", row.save_path);
  f.field("config_path", row.config_path);
  f.field("config_save_type", row.config_save_type);
  f.field("train_task_version_id", row.train_task_version_id);
  f.field("llm_fine_tune_task_id", row.llm_fine_tune_task_id);
  f.field("training_output", row.training_output);
  f.field("pre_deploy_label", row.pre_deploy_label);
  f.field("scale", row.scale);
  f.field("model_structure", row.model_structure);
  f.field("hyper_parameters", row.hyper_parameters);
  f.field("metrics", row.metrics);
  f.field("state", row.state);
  f.field("failure_zh", row.failure_zh);
  f.field("failure_en", row.failure_en);
  f.field("source_root", row.source_root);
  f.field("source_path", row.source_path);
  f.field("folder", row.folder);
  f.field("size_bytes", row.size_bytes);
  f.field("stored_bytes", row.stored_bytes);
  f.field("stored_inodes", row.stored_inodes);
  f.field("details", row.details);
  f.field("config_text", row.config_text);
  f.field("deploy_text", row.deploy_text);
  f.field("created_at", row.created_at);
  f.field("updated_at", row.updated_at);
  f.field("ended_at", row.ended_at);
}

void fields(Fields& f, RemovalRow& row) {
  f.field("version_id", row.version_id);
  f.field("folder", row.folder);
  f.field("created_at", row.created_at);
}

// --- models ------------------------------------------------------------------------------------------------

std::optional<ModelRow> model(db::Transaction& tx, std::string_view id) {
  return db::select_one<ModelRow>(tx, "SELECT * FROM models WHERE id = $1", {text(id)});
}

std::optional<ModelRow> model_named(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  return db::select_one<ModelRow>(tx, "SELECT * FROM models WHERE user_id = $1 AND name = $2",
                                  {text(user_id), text(name)});
}

void insert(db::Transaction& tx, ModelRow row) {
  row.name_key = key_of(row.name);
  db::insert(tx, "models", row);
}

void update(db::Transaction& tx, ModelRow row) {
  row.name_key = key_of(row.name);
  db::update(tx, "models", row);
}

void delete_model(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM models WHERE id = $1", {text(id)});
}

bool has_models(db::Transaction& tx, std::string_view user_id) {
  return !tx.query("SELECT id FROM models WHERE user_id = $1 LIMIT 1", {text(user_id)}).empty();
}

std::string count_query(const Filter& filter) {
  return "SELECT COUNT(*) AS total FROM models" + Where(filter).sql();
}

std::int64_t count_models(db::Transaction& tx, const Filter& filter) {
  const db::Rows rows = tx.query(count_query(filter), Where(filter).args);
  return rows.integer(0, 0);
}

// What is skipped is skipped in an index; only the page's own rows are fetched.
std::string page_query(const Filter& filter) {
  const Where where(filter);
  return fmt::format(
      "SELECT * FROM models WHERE id IN (SELECT id FROM models{} ORDER BY id DESC LIMIT {} OFFSET {}) "
      "ORDER BY id DESC",
      where.sql(), where.next(1), where.next(2));
}

std::vector<ModelRow> page(db::Transaction& tx, const Filter& filter, std::int64_t limit,
                           std::int64_t offset) {
  auto args = Where(filter).args;
  args.emplace_back(limit);
  args.emplace_back(offset);
  return db::select<ModelRow>(tx, page_query(filter), std::move(args));
}

std::string slice_query(const Filter& filter) {
  Where where(filter);
  where.add("id < {}", "");
  return fmt::format(
      "SELECT * FROM models WHERE id IN (SELECT id FROM models{} ORDER BY id DESC LIMIT {}) ORDER BY id DESC",
      where.sql(), where.next(1));
}

std::vector<ModelRow> slice(db::Transaction& tx, const Filter& filter, std::string_view before,
                            std::int64_t limit) {
  auto args = Where(filter).args;
  args.push_back(text(before.empty() ? "~" : before));
  args.emplace_back(limit);
  return db::select<ModelRow>(tx, slice_query(filter), std::move(args));
}

std::string summaries_query(std::size_t models) {
  return fmt::format(
      "SELECT model_id, COUNT(*) AS versions, COALESCE(SUM(size_bytes), 0) AS size_bytes, MAX(id) AS "
      "latest_id "
      "FROM model_versions WHERE model_id IN ({}) GROUP BY model_id",
      placeholders(models));
}

std::vector<Summary> summaries(db::Transaction& tx, const std::vector<std::string>& model_ids) {
  if (model_ids.empty()) return {};
  const db::Rows counts = tx.query(summaries_query(model_ids.size()), texts(model_ids));
  std::vector<Summary> out;
  std::vector<std::string> latest;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    out.push_back({counts.text(i, 0), counts.integer(i, 1), counts.integer(i, 2), counts.text(i, 3), {}, {}});
    latest.push_back(out.back().latest_id);
  }
  if (latest.empty()) return out;
  const db::Rows rows = tx.query(fmt::format("SELECT id, version, state FROM model_versions WHERE id IN ({})",
                                             placeholders(latest.size())),
                                 texts(latest));
  std::unordered_map<std::string, std::size_t> row_of;
  for (std::size_t i = 0; i < rows.size(); ++i) row_of.emplace(rows.text(i, 0), i);
  for (auto& summary : out) {
    const std::size_t row = row_of.at(summary.latest_id);
    summary.latest_version = rows.text(row, 1);
    summary.latest_state = rows.text(row, 2);
  }
  return out;
}

// --- versions ----------------------------------------------------------------------------------------------

std::optional<VersionRow> version(db::Transaction& tx, std::string_view id) {
  return db::select_one<VersionRow>(tx, "SELECT * FROM model_versions WHERE id = $1", {text(id)});
}

std::optional<VersionRow> version_named(db::Transaction& tx, std::string_view model_id,
                                        std::string_view version) {
  return db::select_one<VersionRow>(tx, "SELECT * FROM model_versions WHERE model_id = $1 AND version = $2",
                                    {text(model_id), text(version)});
}

std::vector<VersionRow> versions(db::Transaction& tx, std::string_view model_id) {
  return db::select<VersionRow>(tx, "SELECT * FROM model_versions WHERE model_id = $1 ORDER BY id DESC",
                                {text(model_id)});
}

std::vector<VersionRow> versions(db::Transaction& tx, std::string_view model_id, std::string_view before,
                                 std::int64_t limit) {
  return db::select<VersionRow>(
      tx, "SELECT * FROM model_versions WHERE model_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
      {text(model_id), text(before.empty() ? "~" : before), limit});
}

std::vector<VersionRow> versions_of_request(db::Transaction& tx, std::string_view request_id) {
  return db::select<VersionRow>(tx, "SELECT * FROM model_versions WHERE request_id = $1 ORDER BY id",
                                {text(request_id)});
}

std::vector<VersionRow> versions_of_outputs(db::Transaction& tx, std::span<const std::string> outputs) {
  if (outputs.empty()) return {};
  return db::select<VersionRow>(
      tx,
      fmt::format("SELECT * FROM model_versions WHERE training_output <> '' AND training_output IN ({}) "
                  "ORDER BY id DESC",
                  placeholders(outputs.size())),
      texts(outputs));
}

std::optional<VersionRow> version_of_image(db::Transaction& tx, std::string_view image_id,
                                           std::string_view tag) {
  return db::select_one<VersionRow>(tx,
                                    "SELECT * FROM model_versions WHERE image_id <> '' AND image_id = $1 AND "
                                    "($2 = '' OR image_tag = $2) LIMIT 1",
                                    {text(image_id), text(tag)});
}

std::vector<VersionRow> importing(db::Transaction& tx, std::string_view after, std::int64_t limit) {
  return db::select<VersionRow>(
      tx, "SELECT * FROM model_versions WHERE state = 'importing' AND id > $1 ORDER BY id LIMIT $2",
      {text(after), limit});
}

void insert(db::Transaction& tx, const VersionRow& row) {
  db::insert(tx, "model_versions", row);
}

void update(db::Transaction& tx, const VersionRow& row) {
  db::update(tx, "model_versions", row);
}

void delete_version(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM model_versions WHERE id = $1", {text(id)});
}

quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id) {
  const db::Rows rows = tx.query(
      "SELECT COALESCE(SUM(stored_bytes), 0), COALESCE(SUM(stored_inodes), 0) FROM model_versions "
      "WHERE user_id = $1",
      {text(user_id)});
  return {rows.integer(0, 0), rows.integer(0, 1)};
}

// --- removals ----------------------------------------------------------------------------------------------

void insert(db::Transaction& tx, const RemovalRow& row) {
  db::insert(tx, "model_removals", row);
}

std::vector<RemovalRow> removals(db::Transaction& tx) {
  return db::select<RemovalRow>(tx, "SELECT * FROM model_removals ORDER BY version_id");
}

void delete_removal(db::Transaction& tx, std::string_view version_id) {
  tx.execute("DELETE FROM model_removals WHERE version_id = $1", {text(version_id)});
}

}  // namespace lathe::models::store
