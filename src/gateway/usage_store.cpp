#include "gateway/usage_store.h"

namespace lathe::gateway::store {

void fields(Fields& f, UsageRow& row) {
  f.field("user_id", row.user_id);
  f.field("key_id", row.key_id);
  f.field("service_id", row.service_id);
  f.field("day", row.day);
  f.field("requests", row.requests);
  f.field("prompt_tokens", row.prompt_tokens);
  f.field("completion_tokens", row.completion_tokens);
}

std::string key_of(db::Transaction& tx, std::string_view token_hash) {
  const auto rows = tx.query("SELECT id FROM api_keys WHERE token_hash = $1", {token_hash});
  return rows.empty() ? "" : rows.text(0, 0);
}

void add(db::Transaction& tx, const UsageRow& row) {
  tx.execute(
      "INSERT INTO gateway_usage (user_id, key_id, service_id, day, requests, prompt_tokens, "
      "completion_tokens) VALUES ($1, $2, $3, $4, $5, $6, $7) "
      "ON CONFLICT (user_id, key_id, service_id, day) DO UPDATE SET "
      "requests = gateway_usage.requests + excluded.requests, "
      "prompt_tokens = gateway_usage.prompt_tokens + excluded.prompt_tokens, "
      "completion_tokens = gateway_usage.completion_tokens + excluded.completion_tokens",
      {row.user_id, row.key_id, row.service_id, row.day, row.requests, row.prompt_tokens,
       row.completion_tokens});
}

std::vector<wire::UsageItem> sums(db::Transaction& tx, std::string_view user_id, std::string_view key_id,
                                  std::int64_t first_day) {
  const auto rows = tx.query(
      "SELECT user_id, key_id, service_id, SUM(requests) AS requests, SUM(prompt_tokens) AS prompts, "
      "SUM(completion_tokens) AS completions FROM gateway_usage "
      "WHERE day >= $1 AND ($2 = '' OR user_id = $2) AND ($3 = '' OR key_id = $3) "
      "GROUP BY user_id, key_id, service_id ORDER BY user_id, key_id, service_id",
      {first_day, user_id, key_id});
  std::vector<wire::UsageItem> out;
  for (std::size_t i = 0; i < rows.size(); ++i)
    out.push_back({.userId = rows.text(i, 0),
                   .keyId = rows.text(i, 1),
                   .deploymentId = rows.text(i, 2),
                   .requests = rows.integer(i, 3),
                   .promptTokens = rows.integer(i, 4),
                   .completionTokens = rows.integer(i, 5)});
  return out;
}

}  // namespace lathe::gateway::store
