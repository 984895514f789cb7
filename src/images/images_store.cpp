#include "images/images_store.h"

#include "db/row.h"

namespace lathe::images::store {

namespace {

std::int64_t millis(Time time) {
  return time.time_since_epoch().count();
}

std::string text(std::string_view view) {
  return std::string(view);
}

/// `%` and `_` of the user's text are themselves.
std::string like_pattern(std::string_view part) {
  std::string out = "%";
  for (const char c : part) {
    if (c == '%' || c == '_' || c == '\\') out += '\\';
    out += c;
  }
  return out + "%";
}

struct Where {
  std::string sql = " WHERE 1 = 1";
  std::vector<db::Value> args;

  std::string add(std::string value) {
    args.emplace_back(std::move(value));
    return "$" + std::to_string(args.size());
  }
};

Where where(const ListFilter& filter) {
  Where out;
  if (filter.user_id) out.sql += " AND (user_id = " + out.add(*filter.user_id) + " OR is_public = 1)";
  if (filter.names.empty()) return out;
  out.sql += " AND (";
  for (std::size_t i = 0; i < filter.names.size(); ++i)
    out.sql +=
        (i > 0 ? " OR " : "") + ("name LIKE " + out.add(like_pattern(filter.names[i]))) + " ESCAPE '\\'";
  out.sql += ")";
  return out;
}

}  // namespace

void fields(Fields& f, ImageRow& r) {
  f.field("id", r.id);
  f.field("user_id", r.user_id);
  f.field("name", r.name);
  f.field("icon", r.icon);
  f.field("overview", r.overview);
  f.field("labels", r.labels);
  f.field("description", r.description);
  f.field("is_public", r.is_public);
  f.field("status", r.status);
  f.field("fail_zh", r.fail_zh);
  f.field("fail_en", r.fail_en);
  f.field("tag_count", r.tag_count);
  f.field("latest_tag", r.latest_tag);
  f.field("latest_size", r.latest_size);
  f.field("created_at", r.created_at);
  f.field("updated_at", r.updated_at);
}

void fields(Fields& f, TagRow& r) {
  f.field("image_id", r.image_id);
  f.field("tag", r.tag);
  f.field("manifest", r.manifest);
  f.field("size", r.size);
  f.field("created_at", r.created_at);
  f.field("updated_at", r.updated_at);
}

void fields(Fields& f, ImportRow& r) {
  f.field("id", r.id);
  f.field("image_id", r.image_id);
  f.field("user_id", r.user_id);
  f.field("tag", r.tag);
  f.field("file_path", r.file_path);
  f.field("reference", r.reference);
  f.field("with_credentials", r.with_credentials);
  f.field("state", r.state);
  f.field("fail_zh", r.fail_zh);
  f.field("fail_en", r.fail_en);
  f.field("total", r.total);
  f.field("created_at", r.created_at);
  f.field("ended_at", r.ended_at);
}

std::optional<ImageRow> image(db::Transaction& tx, std::string_view id) {
  return db::select_one<ImageRow>(tx, "SELECT * FROM images WHERE id = $1", {text(id)});
}

std::optional<ImageRow> own_image_named(db::Transaction& tx, std::string_view user_id,
                                        std::string_view name) {
  return db::select_one<ImageRow>(tx, "SELECT * FROM images WHERE user_id = $1 AND name = $2",
                                  {text(user_id), text(name)});
}

std::optional<ImageRow> image_named(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  if (auto own = own_image_named(tx, user_id, name)) return own;
  return db::select_one<ImageRow>(
      tx, "SELECT * FROM images WHERE name = $1 AND is_public = 1 ORDER BY user_id LIMIT 1", {text(name)});
}

void add_image(db::Transaction& tx, const ImageRow& row) {
  db::insert(tx, "images", row);
}

void update_image(db::Transaction& tx, const ImageRow& row) {
  db::update(tx, "images", row);
}

void remove_image(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM image_tags WHERE image_id = $1", {text(id)});
  tx.execute("DELETE FROM image_contents WHERE image_id = $1", {text(id)});
  tx.execute(
      "DELETE FROM image_import_entries WHERE import_id IN (SELECT id FROM image_imports WHERE image_id = "
      "$1)",
      {text(id)});
  tx.execute("DELETE FROM image_imports WHERE image_id = $1", {text(id)});
  tx.execute("DELETE FROM images WHERE id = $1", {text(id)});
}

bool has_images(db::Transaction& tx, std::string_view user_id) {
  return !tx.query("SELECT id FROM images WHERE user_id = $1 LIMIT 1", {text(user_id)}).empty();
}

std::int64_t count_images(db::Transaction& tx, const ListFilter& filter) {
  const Where w = where(filter);
  return tx.query("SELECT COUNT(*) FROM images" + w.sql, w.args).integer(0, 0);
}

std::vector<ImageRow> list_images(db::Transaction& tx, const ListFilter& filter, std::int64_t limit,
                                  std::int64_t offset) {
  Where w = where(filter);
  w.args.emplace_back(limit);
  w.args.emplace_back(offset);
  const std::string n = std::to_string(w.args.size() - 1), m = std::to_string(w.args.size());
  return db::select<ImageRow>(
      tx, "SELECT * FROM images" + w.sql + " ORDER BY id DESC LIMIT $" + n + " OFFSET $" + m, w.args);
}

std::vector<TagRow> tags(db::Transaction& tx, std::string_view image_id) {
  return db::select<TagRow>(tx,
                            "SELECT * FROM image_tags WHERE image_id = $1 ORDER BY updated_at DESC, tag DESC",
                            {text(image_id)});
}

std::optional<TagRow> tag(db::Transaction& tx, std::string_view image_id, std::string_view tag) {
  return db::select_one<TagRow>(tx, "SELECT * FROM image_tags WHERE image_id = $1 AND tag = $2",
                                {text(image_id), text(tag)});
}

void remove_tag(db::Transaction& tx, std::string_view image_id, std::string_view tag) {
  tx.execute("DELETE FROM image_tags WHERE image_id = $1 AND tag = $2", {text(image_id), text(tag)});
}

void add_import(db::Transaction& tx, const ImportRow& row) {
  db::insert(tx, "image_imports", row);
}

std::optional<ImportRow> import(db::Transaction& tx, std::string_view id) {
  return db::select_one<ImportRow>(tx, "SELECT * FROM image_imports WHERE id = $1", {text(id)});
}

std::vector<ImportRow> unfinished_imports(db::Transaction& tx) {
  return db::select<ImportRow>(
      tx, "SELECT * FROM image_imports WHERE state IN ('queued', 'running') ORDER BY id");
}

bool is_importing(db::Transaction& tx, std::string_view image_id, std::string_view tag) {
  return !tx.query(
                "SELECT id FROM image_imports WHERE image_id = $1 AND tag = $2 AND state IN ('queued', "
                "'running')",
                {text(image_id), text(tag)})
              .empty();
}

std::vector<ImportRow> imports(db::Transaction& tx, std::string_view image_id, std::int64_t limit) {
  return db::select<ImportRow>(tx,
                               "SELECT * FROM image_imports WHERE image_id = $1 ORDER BY id DESC LIMIT $2",
                               {text(image_id), limit});
}

void start_import(db::Transaction& tx, std::string_view id, std::int64_t total) {
  tx.execute("UPDATE image_imports SET state = 'running', total = $1 WHERE id = $2", {total, text(id)});
}

void set_import_total(db::Transaction& tx, std::string_view id, std::int64_t total) {
  tx.execute("UPDATE image_imports SET total = $1 WHERE id = $2", {total, text(id)});
}

void end_import(db::Transaction& tx, std::string_view id, const std::optional<Text>& failure, Time now) {
  tx.execute("UPDATE image_imports SET state = $1, fail_zh = $2, fail_en = $3, ended_at = $4 WHERE id = $5",
             {failure ? "failed" : "succeeded", failure ? failure->zh : "", failure ? failure->en : "",
              millis(now), text(id)});
}

void summarize(db::Transaction& tx, std::string_view image_id, Time now) {
  auto row = image(tx, image_id);
  if (!row) return;
  const auto all = tags(tx, image_id);
  row->tag_count = static_cast<std::int64_t>(all.size());
  row->latest_tag = all.empty() ? "" : all.front().tag;
  row->latest_size = all.empty() ? 0 : all.front().size;
  const auto last = imports(tx, image_id, 1);
  const bool importing =
      !tx.query(
             "SELECT id FROM image_imports WHERE image_id = $1 AND state IN ('queued', 'running') "
             "LIMIT 1",
             {text(image_id)})
           .empty();
  // What was pushed later makes a failed import good.
  const bool failed =
      !last.empty() && last.front().state == "failed" &&
      (all.empty() || !last.front().ended_at || all.front().updated_at <= *last.front().ended_at);
  row->fail_zh = failed ? last.front().fail_zh : "";
  row->fail_en = failed ? last.front().fail_en : "";
  row->status = static_cast<std::int64_t>(importing     ? Status::importing
                                          : failed      ? Status::failed
                                          : all.empty() ? Status::empty
                                                        : Status::ready);
  row->updated_at = now;
  update_image(tx, *row);
}

std::vector<oci::IndexEntry> index_entries(db::Transaction& tx) {
  const auto rows = tx.query(
      "SELECT m.media_type, m.digest, b.size, i.user_id, i.name, t.tag FROM image_tags t "
      "JOIN images i ON i.id = t.image_id JOIN image_manifests m ON m.digest = t.manifest "
      "JOIN image_blobs b ON b.manifest = m.digest AND b.digest = m.digest ORDER BY i.id, t.tag");
  std::vector<oci::IndexEntry> out;
  for (std::size_t i = 0; i < rows.size(); ++i)
    out.push_back({rows.text(i, 0), rows.text(i, 1),
                   rows.text(i, 3) + "/" + rows.text(i, 4) + ":" + rows.text(i, 5), rows.integer(i, 2)});
  return out;
}

quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id) {
  const auto rows = tx.query(
      "SELECT CAST(COALESCE(SUM(used.size), 0) AS BIGINT), COUNT(*) FROM "
      "(SELECT b.digest, b.size FROM images i JOIN image_contents c ON c.image_id = i.id "
      "JOIN image_blobs b ON b.manifest = c.manifest WHERE i.user_id = $1 "
      "UNION SELECT digest, size FROM image_loose_blobs WHERE user_id = $1) used",
      {text(user_id)});
  return {rows.integer(0, 0), rows.integer(0, 1)};
}

}  // namespace lathe::images::store
