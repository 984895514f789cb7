#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/accounts.h"
#include "base/clock.h"
#include "db/database.h"

/// Who may do what in the registry (https://distribution.github.io/distribution/spec/auth/token/).
namespace lathe::images::registry {

/// `repository:zjm/a:pull,push`.
struct Scope {
  std::string kind, name;
  std::vector<std::string> actions;

  static std::optional<Scope> parse(std::string_view text);
  std::string text() const;
  bool allows(std::string_view action) const;
};

/// Who is asking, and what their token is limited to.
struct Caller {
  http::Identity who;
  std::optional<std::vector<Scope>> scopes;  ///< absent: not limited

  bool within(std::string_view kind, std::string_view name, std::string_view action) const;
};

/// Safe from any thread; blocks.
class Authority {
 public:
  static constexpr Duration kTokenLifetime = std::chrono::minutes{5};

  static Result<std::unique_ptr<Authority>> open(db::Database& db, accounts::Accounts& accounts,
                                                 const Clock& clock);

  /// From the request's Authorization: one of the registry's own tokens, a session's token or an API key as
  /// Bearer, or Basic with a user name and an API key or the password. unauthenticated where there is none.
  Result<Caller> caller(const http::Request& request);
  /// The same from a name and a secret.
  Result<http::Identity> check(std::string_view user_name, std::string_view secret, const std::string& peer);
  /// A token for `who` that is good for `scopes` only. What of it they may really do is decided anew at every
  /// request.
  /// It ends with the password it was asked for with, or that the account then had.
  Result<std::string> issue(const http::Identity& who, const std::vector<Scope>& scopes) const;

 private:
  Authority(accounts::Accounts& accounts, const Clock& clock) : accounts_(accounts), clock_(clock) {}
  Result<Caller> redeem(std::string_view token);
  std::string sign(std::string_view text) const;

  accounts::Accounts& accounts_;
  const Clock& clock_;
  std::string secret_;
};

}  // namespace lathe::images::registry
