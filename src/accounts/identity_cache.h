#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "http/api.h"

namespace lathe::accounts {

/// What is known of a token that was valid when it was read.
struct Credential {
  http::Identity who;
  std::string id;  ///< of the session or the API key
  bool is_key = false;
  std::optional<Time> expires_at;  ///< absolutely
  Time last_used{};                ///< as the database has it, or will have once a touch is written
  Time read_at{};
};

/// Tokens that were read from the database a moment ago, by their hash. Whoever changes an account forgets
/// its tokens once the change is committed; what was read before that and arrives later is not kept. Safe
/// from any thread.
class IdentityCache {
 public:
  /// Entries are read again after this time, so that another server's changes are seen too.
  static constexpr Duration kFresh = std::chrono::seconds{30};

  std::optional<Credential> find(const std::string& token_hash, Time now);
  /// Take it before reading from the database, and give it to `put`. Whatever was found here before a change
  /// was found in an earlier epoch than the one after it.
  std::uint64_t epoch() const { return epoch_.load(); }
  void put(const std::string& token_hash, const Credential& credential, std::uint64_t epoch);
  /// Marks the token as used now if the last mark is older than `every`; true: the caller writes it down.
  bool touch(const std::string& token_hash, Time now, Duration every);
  void forget_token(const std::string& token_hash);
  void forget_user(std::string_view user_id);

 private:
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, Credential> entries;
  };
  Shard& shard(const std::string& token_hash);

  std::atomic<std::uint64_t> epoch_{0};
  std::array<Shard, 16> shards_;
};

}  // namespace lathe::accounts
