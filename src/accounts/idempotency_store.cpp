#include "accounts/idempotency.h"

#include <algorithm>

namespace lathe::accounts {

namespace {

constexpr Duration kKept = std::chrono::hours{24};
constexpr Duration kSweepEvery = std::chrono::minutes{10};

bool is_key(std::string_view key) {
  return !key.empty() && key.size() <= 255 &&
         std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

/// Requests with a password in them: a digest of one, though a hash, would be far quicker to guess from than
/// argon2id's.
bool carries_secret(std::string_view operation) {
  return operation == "createUser" || operation == "changePassword";
}

}  // namespace

Result<std::string> Idempotency::reserve(const http::Identity& who, std::string_view key,
                                         std::string_view operation, std::string_view digest) {
  if (!is_key(key))
    return invalid_field("Idempotency-Key",
                         {"应为 1 到 255 个可见 ASCII 字符", "must be 1 to 255 printable ASCII characters"});
  if (who.user_id.empty()) return ids_.next();
  if (carries_secret(operation)) digest = {};
  const std::int64_t now = clock_.now().time_since_epoch().count();
  std::int64_t swept = swept_at_.load();
  const bool sweep = now - swept >= kSweepEvery.count() && swept_at_.compare_exchange_strong(swept, now);

  return db_.write([&](db::Transaction& tx) -> Result<std::string> {
    const std::int64_t horizon = now - kKept.count();
    if (sweep) tx.execute("DELETE FROM idempotency_keys WHERE created_at < $1", {horizon});
    const db::Value user{who.user_id}, word{std::string(key)}, what{std::string(operation)};
    tx.execute(
        "DELETE FROM idempotency_keys WHERE user_id = $1 AND idempotency_key = $2 AND operation = $3 "
        "AND created_at < $4",
        {user, word, what, horizon});
    tx.execute(
        "INSERT INTO idempotency_keys (user_id, idempotency_key, operation, digest, id, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, idempotency_key, operation) DO NOTHING",
        {user, word, what, std::string(digest), ids_.next(), now});
    const db::Rows rows = tx.query(
        "SELECT id, digest FROM idempotency_keys "
        "WHERE user_id = $1 AND idempotency_key = $2 AND operation = $3",
        {user, word, what});
    if (rows.text(0, rows.column("digest")) != digest)
      return Error{
          Code::unsatisfiable,
          {"该 Idempotency-Key 已用于另一个请求", "this Idempotency-Key was used for a different request"}};
    return rows.text(0, rows.column("id"));
  });
}

}  // namespace lathe::accounts
