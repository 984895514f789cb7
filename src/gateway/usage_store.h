#pragma once

#include <string>
#include <vector>

#include "db/row.h"
#include "gateway/usage_wire.h"

/// The table gateway_usage. Every function runs inside the transaction it is given.
namespace lathe::gateway::store {

struct UsageRow {
  std::string user_id, key_id, service_id;
  std::int64_t day = 0;  ///< days since 1970
  std::int64_t requests = 0, prompt_tokens = 0, completion_tokens = 0;
};
void fields(Fields& f, UsageRow& row);

/// The API key with this hash; "" if there is none.
std::string key_of(db::Transaction& tx, std::string_view token_hash);
/// Adds the numbers to what is there.
void add(db::Transaction& tx, const UsageRow& row);
/// Sums from `first_day` on, by user, key and service; "" for everybody's or every key's.
std::vector<wire::UsageItem> sums(db::Transaction& tx, std::string_view user_id, std::string_view key_id,
                                  std::int64_t first_day);

}  // namespace lathe::gateway::store
