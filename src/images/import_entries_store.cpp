#include "images/import_entries_store.h"

namespace lathe::images::store {

void add_import_entry(db::Transaction& tx, std::string_view import_id, std::string_view source,
                      std::string_view name, const Blob& blob) {
  tx.execute(
      "INSERT INTO image_import_entries (import_id, name, source, digest, size) VALUES ($1, $2, $3, $4, $5) "
      "ON CONFLICT (import_id, name) DO UPDATE SET source = excluded.source, digest = excluded.digest, "
      "size = excluded.size",
      {import_id, name, source, blob.digest, static_cast<std::int64_t>(blob.size)});
}

std::map<std::string, Blob, std::less<>> import_entries(db::Transaction& tx, std::string_view import_id,
                                                        std::string_view source) {
  const auto rows =
      tx.query("SELECT name, digest, size FROM image_import_entries WHERE import_id = $1 AND source = $2",
               {import_id, source});
  std::map<std::string, Blob, std::less<>> out;
  for (std::size_t i = 0; i < rows.size(); ++i)
    out[rows.text(i, 0)] = {rows.text(i, 1), static_cast<std::uint64_t>(rows.integer(i, 2))};
  return out;
}

std::vector<std::string> drop_import_entries(db::Transaction& tx, std::string_view import_id) {
  const auto rows =
      tx.query("DELETE FROM image_import_entries WHERE import_id = $1 RETURNING digest", {import_id});
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

}  // namespace lathe::images::store
