#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "db/row.h"
#include "quotas/quotas.h"

/// The tables of quotas and resource groups. Every function runs inside the transaction it is given.
namespace lathe::quotas::store {

std::optional<Quota> quota(db::Transaction& tx, std::string_view user_id);
void put_quota(db::Transaction& tx, std::string_view user_id, const Quota& quota);
std::int64_t delete_quota(db::Transaction& tx, std::string_view user_id);

std::optional<ResourceGroup> group(db::Transaction& tx, std::string_view id);
std::optional<ResourceGroup> group_named(db::Transaction& tx, std::string_view name);
/// Newest first, those before the id `before` (empty: from the start).
std::vector<ResourceGroup> groups(db::Transaction& tx, std::string_view before, std::int64_t limit);
/// Failure: already_exists.
void insert_group(db::Transaction& tx, const ResourceGroup& group);
void update_group(db::Transaction& tx, const ResourceGroup& group);
void delete_group(db::Transaction& tx, std::string_view id);

}  // namespace lathe::quotas::store
