#include "images/registry/authority.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "base/base64.h"
#include "base/ids.h"
#include "base/json.h"
#include "http/credentials.h"
#include "images/registry/registry_store.h"

namespace lathe::images::registry {

namespace {

constexpr std::string_view kPrefix = "lathe-registry.";
constexpr std::size_t kMostScopes = 100;

struct Claims {
  std::string user, password;  ///< its mark
  std::int64_t expires = 0;
  std::vector<std::string> scopes;
};
void fields(Fields& f, Claims& c) {
  f.field("user", c.user, {.required = true});
  f.field("password", c.password, {.required = true});
  f.field("expires", c.expires, {.required = true});
  f.field("scopes", c.scopes, {.max_length = 1000});
}

Error not_valid() {
  return {Code::unauthenticated, {"令牌无效或已过期", "the token is not valid or has expired"}};
}

std::string_view value_of(std::string_view header) {
  header.remove_prefix(std::min(header.find(' '), header.size()));
  header.remove_prefix(std::min(header.find_first_not_of(' '), header.size()));
  return header;
}

}  // namespace

std::optional<Scope> Scope::parse(std::string_view text) {
  const auto first = text.find(':');
  const auto last = text.rfind(':');
  if (first == std::string_view::npos || last == first || text.size() > 1000) return std::nullopt;
  Scope out;
  out.kind = text.substr(0, first);
  out.name = text.substr(first + 1, last - first - 1);
  std::string_view actions = text.substr(last + 1);
  while (!actions.empty()) {
    const auto comma = std::min(actions.find(','), actions.size());
    if (comma > 0) out.actions.emplace_back(actions.substr(0, comma));
    actions.remove_prefix(std::min(comma + 1, actions.size()));
  }
  return out;
}

std::string Scope::text() const {
  std::string out = kind + ":" + name + ":";
  for (std::size_t i = 0; i < actions.size(); ++i) out += (i > 0 ? "," : "") + actions[i];
  return out;
}

bool Scope::allows(std::string_view action) const {
  return std::any_of(actions.begin(), actions.end(),
                     [&](const auto& one) { return one == action || one == "*"; });
}

bool Caller::within(std::string_view kind, std::string_view name, std::string_view action) const {
  if (!scopes) return true;
  return std::any_of(scopes->begin(), scopes->end(), [&](const Scope& scope) {
    return scope.kind == kind && scope.name == name && scope.allows(action);
  });
}

Result<std::unique_ptr<Authority>> Authority::open(db::Database& db, accounts::Accounts& accounts,
                                                   const Clock& clock) {
  std::unique_ptr<Authority> out(new Authority(accounts, clock));
  out->secret_ = TRY(db.write(
      [](db::Transaction& tx) -> Result<std::string> { return store::signing_key(tx, random_hex(32)); }));
  return out;
}

std::string Authority::sign(std::string_view text) const {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash, &size);
  return to_base64(std::string_view(reinterpret_cast<const char*>(hash), size));
}

Result<std::string> Authority::issue(const http::Identity& who, const std::vector<Scope>& scopes) const {
  const auto user = TRY(accounts_.user(who.user_id));
  Claims claims{
      who.user_id, user.password_mark, (clock_.now() + kTokenLifetime).time_since_epoch().count(), {}};
  for (const Scope& scope : scopes)
    if (claims.scopes.size() < kMostScopes) claims.scopes.push_back(scope.text());
  const std::string text = to_base64(json::write(claims));
  return std::string(kPrefix) + text + "." + sign(text);
}

Result<Caller> Authority::redeem(std::string_view token) {
  token.remove_prefix(kPrefix.size());
  const auto dot = token.find('.');
  if (dot == std::string_view::npos) return not_valid();
  const std::string right = sign(token.substr(0, dot));
  const std::string_view given = token.substr(dot + 1);
  if (given.size() != right.size() || CRYPTO_memcmp(given.data(), right.data(), right.size()) != 0)
    return not_valid();
  const auto text = from_base64(token.substr(0, dot));
  if (!text) return not_valid();
  const auto claims = TRY(json::parse_as<Claims>(*text));
  if (Time(Duration(claims.expires)) <= clock_.now()) return not_valid();
  const auto user = accounts_.user(claims.user);
  if (!user || user->disabled || user->password_mark != claims.password) return not_valid();
  Caller out{{user->id, user->user_name, user->admin}, std::vector<Scope>()};
  for (const auto& one : claims.scopes)
    if (auto scope = Scope::parse(one)) out.scopes->push_back(*std::move(scope));
  return out;
}

Result<http::Identity> Authority::check(std::string_view user_name, std::string_view secret,
                                        const std::string& peer) {
  if (user_name.empty() || secret.empty())
    return Error{Code::unauthenticated, {"用户名或密码错误", "wrong user name or password"}};
  // An API key is known by its form; accounts say which that is.
  http::Request request;
  request.headers.add("Authorization",
                      "Basic " + to_base64(std::string(user_name) + ":" + std::string(secret)));
  if (auto by_key = accounts_.authenticate(request); by_key && !by_key->user_id.empty()) return by_key;
  return accounts_.check_password(user_name, secret, peer);
}

Result<Caller> Authority::caller(const http::Request& request) {
  const std::string_view header = request.headers.get("authorization");
  if (http::has_scheme(header, "bearer") && value_of(header).starts_with(kPrefix))
    return redeem(value_of(header));
  if (http::has_scheme(header, "basic")) {
    const auto plain = from_base64(value_of(header));
    const auto colon = plain ? plain->find(':') : std::string::npos;
    if (colon == std::string::npos) return not_valid();
    return Caller{TRY(check(std::string_view(*plain).substr(0, colon),
                            std::string_view(*plain).substr(colon + 1), request.peer)),
                  std::nullopt};
  }
  http::Identity who = TRY(accounts_.authenticate(request));
  if (who.user_id.empty()) return Error{Code::unauthenticated, {"未登录", "authentication is required"}};
  return Caller{std::move(who), std::nullopt};
}

}  // namespace lathe::images::registry
