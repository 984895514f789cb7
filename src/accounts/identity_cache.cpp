#include "accounts/identity_cache.h"

namespace lathe::accounts {

namespace {

constexpr std::size_t kMostInShard = 4096;

}  // namespace

IdentityCache::Shard& IdentityCache::shard(const std::string& token_hash) {
  return shards_[std::hash<std::string>{}(token_hash) % shards_.size()];
}

std::optional<Credential> IdentityCache::find(const std::string& token_hash, Time now) {
  Shard& part = shard(token_hash);
  const std::lock_guard lock(part.mutex);
  const auto it = part.entries.find(token_hash);
  if (it == part.entries.end()) return std::nullopt;
  if (now - it->second.read_at >= kFresh) {
    part.entries.erase(it);
    return std::nullopt;
  }
  return it->second;
}

void IdentityCache::put(const std::string& token_hash, const Credential& credential, std::uint64_t epoch) {
  Shard& part = shard(token_hash);
  const std::lock_guard lock(part.mutex);
  // A change raises the epoch before it takes this lock to forget: either it is seen here, or it forgets what
  // is put here.
  if (epoch_.load() != epoch) return;
  if (part.entries.size() >= kMostInShard) part.entries.clear();
  part.entries.insert_or_assign(token_hash, credential);
}

bool IdentityCache::touch(const std::string& token_hash, Time now, Duration every) {
  Shard& part = shard(token_hash);
  const std::lock_guard lock(part.mutex);
  const auto it = part.entries.find(token_hash);
  if (it == part.entries.end() || now - it->second.last_used < every) return false;
  it->second.last_used = now;
  return true;
}

// The epoch is raised before, for what is being read from the database, and after, for what was found here
// until just now and is kept elsewhere.
void IdentityCache::forget_token(const std::string& token_hash) {
  ++epoch_;
  Shard& part = shard(token_hash);
  const std::lock_guard lock(part.mutex);
  part.entries.erase(token_hash);
  ++epoch_;
}

void IdentityCache::forget_user(std::string_view user_id) {
  ++epoch_;
  for (Shard& part : shards_) {
    const std::lock_guard lock(part.mutex);
    std::erase_if(part.entries, [&](const auto& item) { return item.second.who.user_id == user_id; });
  }
  ++epoch_;
}

}  // namespace lathe::accounts
