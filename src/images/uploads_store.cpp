#include "images/uploads_store.h"

#include "db/row.h"

namespace lathe::images::store {

// In the row's namespace, where db::select finds it.
static void fields(Fields& f, UploadRow& r) {
  f.field("id", r.id);
  f.field("user_id", r.user_id);
  f.field("name", r.name);
  f.field("touched_at", r.touched_at);
}

void add_upload(db::Transaction& tx, const UploadRow& row) {
  db::insert(tx, "image_uploads", row);
}

std::optional<UploadRow> upload(db::Transaction& tx, std::string_view id) {
  return db::select_one<UploadRow>(tx, "SELECT * FROM image_uploads WHERE id = $1", {id});
}

std::optional<UploadRow> upload_named(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  return db::select_one<UploadRow>(
      tx, "SELECT * FROM image_uploads WHERE user_id = $1 AND name = $2 ORDER BY id LIMIT 1",
      {user_id, name});
}

std::int64_t count_uploads(db::Transaction& tx, std::string_view user_id) {
  return tx.query("SELECT COUNT(*) FROM image_uploads WHERE user_id = $1", {user_id}).integer(0, 0);
}

std::vector<std::string> upload_ids(db::Transaction& tx) {
  const auto rows = tx.query("SELECT id FROM image_uploads");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

std::vector<UploadRow> uploads_until(db::Transaction& tx, Time touched) {
  return db::select<UploadRow>(tx, "SELECT * FROM image_uploads WHERE touched_at <= $1", {touched});
}

void touch_upload(db::Transaction& tx, std::string_view id, Time now) {
  tx.execute("UPDATE image_uploads SET touched_at = $1 WHERE id = $2", {now, id});
}

void remove_upload(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM image_uploads WHERE id = $1", {id});
}

}  // namespace lathe::images::store
