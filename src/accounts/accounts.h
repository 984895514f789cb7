#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/audit.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "db/database.h"
#include "http/api.h"

namespace lathe::accounts {

/// A person (or a program) with an account. `id` is a short decimal string, never reused.
struct User {
  std::string id;
  std::string user_name;
  bool admin = false;
  bool disabled = false;
  Time created_at{};
  /// Another after every change of the password, and no help in guessing it.
  std::string password_mark = {};
};

/// How long a session lasts: it ends when either has passed.
struct SessionLifetime {
  Duration idle{std::chrono::hours{24}};           ///< since it was last used
  Duration absolute{std::chrono::hours{24 * 30}};  ///< since it began
};

/// What a password costs to check. The default is argon2id "interactive": 64 MiB and some 60 ms.
struct PasswordCost {
  std::uint64_t passes = 2;
  std::size_t memory_bytes = std::size_t{64} << 20;
};

struct Options {
  SessionLifetime sessions;
  PasswordCost password_cost;
  /// Passwords checked at the same time (each takes memory_bytes); others wait, few of them.
  std::size_t concurrent_checks = 2;
  /// The first administrator's password; empty: a random one, written to `initial_password_file` (mode 0600).
  std::string admin_password;
  std::string initial_password_file;
  Duration audit_retention{0};  ///< entries of the audit trail are kept for so long; 0: for ever
};

/// What a request of the documented API says about its user, as it came. Never believed, only checked.
struct Named {
  std::string_view user_id = {};
  std::string_view user_name = {};
  std::optional<std::int64_t> login_user = {};  ///< 0: claims to be an administrator, 1: an ordinary user
  std::string_view user_id_field = "userId";    ///< what the fields are called in this request
  std::string_view user_name_field = "userName";
};

/// Accounts, sessions and API keys; who is asking and for whom they may act. Safe from any thread.
class Accounts {
 public:
  /// Makes the first administrator where there are no users yet. The references must outlive it.
  static Result<std::unique_ptr<Accounts>> open(db::Database& db, Audit& audit, IdSource& ids,
                                                const Clock& clock, Options options);
  virtual ~Accounts() = default;

  /// Who holds the request's token: `Authorization: Bearer TOKEN` (a session's or an API key), or `Basic`
  /// with a user name and an API key. An Identity without user_id if there is none; unauthenticated if it is
  /// not valid (any more). Answered from memory, right at once after a logout or a change of the account.
  virtual Result<http::Identity> authenticate(const http::Request& request) = 0;

  /// Who has this name and password. For clients that can send nothing else (the registry's); slow the first
  /// time, then from memory until the account changes. unauthenticated when wrong; resource_exhausted after
  /// too many tries. Blocks: never on an I/O thread.
  virtual Result<http::Identity> check_password(std::string_view user_name, std::string_view password,
                                                const std::string& peer) = 0;

  /// The id of the user for whom `caller` acts: themselves where `named_user_id` is empty. Naming somebody
  /// else is permission_denied, save for an administrator, for whom an unknown user is an error of `field`.
  virtual Result<std::string> acting_for(const http::Identity& caller, std::string_view named_user_id,
                                         std::string_view field) = 0;
  /// The same for requests that also give a name (`userName`) or a role (`loginUser`): all that is given must
  /// fit together; a name alone names the user.
  virtual Result<User> acting_for(const http::Identity& caller, const Named& named) = 0;
  /// Whose things a list shows: nothing means everybody's, which is what an administrator gets who names
  /// nobody.
  virtual Result<std::optional<std::string>> listing_for(const http::Identity& caller,
                                                         std::string_view named_user_id,
                                                         std::string_view field) = 0;

  virtual Result<User> user(std::string_view id) = 0;
  /// The user of that name, whatever its case; not_found if there is none.
  virtual Result<User> user_named(std::string_view user_name) = 0;
  /// "" for a user who does not exist (any more). From memory.
  virtual std::string name_of(std::string_view user_id) = 0;

  /// Asked inside the transaction that would delete a user; an error refuses the deletion and says what of
  /// theirs is in the way. Called at start, before the first request.
  using DeletionGuard = std::function<Result<void>(db::Transaction& tx, std::string_view user_id)>;
  virtual void guard_deletion(DeletionGuard guard) = 0;

  /// /api/v1/sessions, /me, /api-keys, /users, /audit.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::accounts
