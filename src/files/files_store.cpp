#include "files/files_store.h"

#include "db/row.h"

namespace lathe::files {

std::vector<UsageRow> all_usage(db::Transaction& tx) {
  return db::select<UsageRow>(tx, "SELECT * FROM file_usage");
}

void save_usage(db::Transaction& tx, const UsageRow& row) {
  tx.execute(
      "INSERT INTO file_usage (user_id, bytes, inodes, measured_at) VALUES ($1, $2, $3, $4) "
      "ON CONFLICT (user_id) DO UPDATE SET bytes = excluded.bytes, inodes = excluded.inodes, "
      "measured_at = excluded.measured_at",
      {row.user_id, row.bytes, row.inodes,
       static_cast<std::int64_t>(row.measured_at.time_since_epoch().count())});
}

std::optional<UploadRow> find_upload(db::Transaction& tx, std::string_view id) {
  return db::select_one<UploadRow>(tx, "SELECT * FROM uploads WHERE id = $1", {std::string(id)});
}

std::vector<UploadRow> all_uploads(db::Transaction& tx) {
  return db::select<UploadRow>(tx, "SELECT * FROM uploads ORDER BY id");
}

std::vector<UploadRow> expired_uploads(db::Transaction& tx, Time now) {
  return db::select<UploadRow>(tx,
                               "SELECT * FROM uploads WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000",
                               {static_cast<std::int64_t>(now.time_since_epoch().count())});
}

void add_upload(db::Transaction& tx, const UploadRow& row) {
  db::insert(tx, "uploads", row);
}

void update_upload(db::Transaction& tx, const UploadRow& row) {
  db::update(tx, "uploads", row);
}

void remove_upload(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM uploads WHERE id = $1", {std::string(id)});
}

}  // namespace lathe::files
