#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "accounts/accounts_service.h"
#include "base/log.h"
#include "http/parser.h"

namespace lathe::accounts {

namespace {

constexpr Duration kTouchEvery = std::chrono::minutes{1};

Error not_valid() {
  return {Code::unauthenticated,
          {"令牌无效或已过期，请重新登录", "the token is not valid or has expired, log in again"}};
}

struct Presented {
  std::string token;
  std::string user_name;  ///< the one that Basic names; empty: none
};

Result<Presented> presented(std::string_view header) {
  const auto space = header.find(' ');
  if (space == std::string_view::npos) return not_valid();
  const auto scheme = header.substr(0, space);
  auto value = header.substr(space + 1);
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  if (value.empty() || value.size() > 1024) return not_valid();
  if (http::same_ignoring_case(scheme, "bearer")) return Presented{std::string(value), {}};
  if (!http::same_ignoring_case(scheme, "basic")) return not_valid();

  std::string plain(value.size(), '\0');
  std::size_t size = 0;
  if (sodium_base642bin(reinterpret_cast<unsigned char*>(plain.data()), plain.size(), value.data(),
                        value.size(), nullptr, &size, nullptr, sodium_base64_VARIANT_ORIGINAL) != 0)
    return not_valid();
  plain.resize(size);
  const auto colon = plain.find(':');
  if (colon == std::string::npos || colon == 0) return not_valid();
  Presented out{plain.substr(colon + 1), plain.substr(0, colon)};
  if (!out.token.starts_with(kKeyPrefix)) return not_valid();
  return out;
}

}  // namespace

std::string token_hash(std::string_view token) {
  unsigned char hash[crypto_generichash_BYTES];
  crypto_generichash(hash, sizeof hash, reinterpret_cast<const unsigned char*>(token.data()), token.size(),
                     nullptr, 0);
  std::string out(sizeof hash * 2 + 1, '\0');
  sodium_bin2hex(out.data(), out.size(), hash, sizeof hash);
  out.pop_back();
  return out;
}

Result<http::Identity> Service::authenticate(const http::Request& request) {
  const auto header = request.headers.get("authorization");
  if (header.empty()) return http::Identity{};
  const Time now = clock_.now();
  const std::uint64_t epoch = cache_.epoch();
  if (auto known = recent_.find(header, now, epoch)) return std::move(*known);
  const Presented given = TRY(presented(header));
  const std::string hash = token_hash(given.token);
  Credential found = TRY(look_up(hash, given.token.starts_with(kKeyPrefix), now));
  if (expired(found, now)) return not_valid();
  if (!given.user_name.empty() && store::name_key(given.user_name) != store::name_key(found.who.user_name))
    return not_valid();
  touch(hash, found, now);
  recent_.put(header, found.who, valid_until(found), epoch);
  return std::move(found.who);
}

Result<http::Identity> Service::check_password(std::string_view user_name, std::string_view password,
                                               const std::string& peer) {
  const std::string name = store::name_key(user_name);
  const std::string hash = token_hash(salt_ + name + "\n" + std::string(password));
  const Time now = clock_.now();
  if (auto cached = cache_.find(hash, now)) return std::move(cached->who);
  TRY(limiter_.begin(name, peer));
  const std::uint64_t epoch = cache_.epoch();
  const auto row = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::UserRow>> {
    return store::user_named(tx, name);
  }));
  const bool right = TRY(passwords_.verify(row ? row->password : std::string(), password));
  if (!right || row->disabled) {
    log::warning("a login of '{}' from {} was refused", name, peer);
    return Error{Code::unauthenticated, {"用户名或密码错误", "wrong user name or password"}};
  }
  limiter_.succeeded(name, peer);
  const http::Identity who{row->id, row->user_name, row->admin};
  cache_.put(hash, {.who = who, .is_key = true, .last_used = now, .read_at = now}, epoch);
  return who;
}

Result<Credential> Service::look_up(const std::string& token_hash, bool is_key, Time now) {
  if (auto cached = cache_.find(token_hash, now)) return std::move(*cached);
  const std::uint64_t epoch = cache_.epoch();
  Credential found = TRY(db_.read([&](db::Transaction& tx) -> Result<Credential> {
    Credential out{.is_key = is_key, .read_at = now};
    std::string user_id;
    if (is_key) {
      const auto row = store::key_with_hash(tx, token_hash);
      if (!row) return not_valid();
      user_id = row->user_id;
      out.id = row->id;
      out.expires_at = row->expires_at;
      out.last_used = row->last_used_at.value_or(Time{});
    } else {
      const auto row = store::session(tx, token_hash);
      if (!row) return not_valid();
      user_id = row->user_id;
      out.id = row->id;
      out.expires_at = row->expires_at;
      out.last_used = row->last_used_at;
    }
    const auto user = store::user(tx, user_id);
    if (!user || user->disabled) return not_valid();
    out.who = {user->id, user->user_name, user->admin};
    return out;
  }));
  cache_.put(token_hash, found, epoch);
  return found;
}

bool Service::expired(const Credential& credential, Time now) const {
  if (credential.expires_at && now >= *credential.expires_at) return true;
  return !credential.is_key && now - credential.last_used >= options_.sessions.idle;
}

Duration Service::touch_every(const Credential& credential) const {
  return credential.is_key ? kTouchEvery : std::min(kTouchEvery, options_.sessions.idle / 10);
}

Time Service::valid_until(const Credential& credential) const {
  // A session is idle for less than its limit as long as its mark is younger than touch_every.
  const Time until =
      std::min(credential.read_at + IdentityCache::kFresh, credential.last_used + touch_every(credential));
  return credential.expires_at ? std::min(until, *credential.expires_at) : until;
}

void Service::touch(const std::string& token_hash, const Credential& credential, Time now) {
  const Duration every = touch_every(credential);
  if (now - credential.last_used < every || !cache_.touch(token_hash, now, every)) return;
  const auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    if (credential.is_key) {
      store::touch_key(tx, credential.id, now);
    } else {
      store::touch_session(tx, credential.id, now);
    }
    return {};
  });
  // A full disk must not lock out whoever comes to make room.
  if (!written.ok())
    log::warning("the use of a token was not written down: {}", written.error().describe(Language::en));
}

}  // namespace lathe::accounts
