#include "accounts/recent_callers.h"

#include <sodium.h>

namespace lathe::accounts {

namespace {

constexpr std::size_t kMostInShard = 1024;

}  // namespace

RecentCallers::RecentCallers() {
  static_assert(crypto_shorthash_siphashx24_KEYBYTES == sizeof key_);
  static_assert(crypto_shorthash_siphashx24_BYTES == sizeof(Digest));
  randombytes_buf(key_.data(), key_.size());
}

RecentCallers::Digest RecentCallers::digest(std::string_view field) const {
  std::array<unsigned char, sizeof(Digest)> bytes;
  crypto_shorthash_siphashx24(bytes.data(), reinterpret_cast<const unsigned char*>(field.data()),
                              field.size(), key_.data());
  Digest out;
  std::memcpy(out.data(), bytes.data(), sizeof out);
  return out;
}

std::optional<http::Identity> RecentCallers::find(std::string_view field, Time now, std::uint64_t epoch) {
  const Digest key = digest(field);
  Shard& part = shard(key);
  const std::lock_guard lock(part.mutex);
  const auto it = part.entries.find(key);
  if (it == part.entries.end() || it->second.epoch != epoch || now >= it->second.until) return std::nullopt;
  return it->second.who;
}

void RecentCallers::put(std::string_view field, const http::Identity& who, Time until, std::uint64_t epoch) {
  const Digest key = digest(field);
  Shard& part = shard(key);
  const std::lock_guard lock(part.mutex);
  if (part.entries.size() >= kMostInShard) part.entries.clear();
  part.entries.insert_or_assign(key, Entry{who, until, epoch});
}

}  // namespace lathe::accounts
