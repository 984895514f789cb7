#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "db/database.h"
#include "images/blob_store.h"

/// What imports under way have brought into the store already.
namespace lathe::images::store {

/// `source` tells the archive's file from another of the same name.
void add_import_entry(db::Transaction& tx, std::string_view import_id, std::string_view source,
                      std::string_view name, const Blob& blob);
std::map<std::string, Blob, std::less<>> import_entries(db::Transaction& tx, std::string_view import_id,
                                                        std::string_view source);
/// Forgets them; gives their digests.
std::vector<std::string> drop_import_entries(db::Transaction& tx, std::string_view import_id);

}  // namespace lathe::images::store
