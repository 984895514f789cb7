#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"
#include "http/api.h"

namespace lathe::accounts {

/// Whom an Authorization field stood for a moment ago: one cheap look for the many requests of few callers,
/// before the token is taken apart and hashed. An answer counts until a time given with it, and only while no
/// token has been forgotten since (IdentityCache::epoch). The fields themselves are not kept, but keyed
/// digests of them. Safe from any thread.
class RecentCallers {
 public:
  RecentCallers();

  std::optional<http::Identity> find(std::string_view field, Time now, std::uint64_t epoch);
  /// `epoch`: from before `who` was looked up.
  void put(std::string_view field, const http::Identity& who, Time until, std::uint64_t epoch);

 private:
  using Digest = std::array<std::uint64_t, 2>;
  struct Hash {
    std::size_t operator()(const Digest& digest) const { return digest[0]; }
  };
  struct Entry {
    http::Identity who;
    Time until{};
    std::uint64_t epoch = 0;
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<Digest, Entry, Hash> entries;
  };
  Digest digest(std::string_view field) const;
  Shard& shard(const Digest& digest) { return shards_[digest[1] % shards_.size()]; }

  std::array<unsigned char, 16> key_{};
  std::array<Shard, 16> shards_;
};

}  // namespace lathe::accounts
