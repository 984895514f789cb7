#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "accounts/accounts.h"
#include "accounts/accounts_store.h"
#include "accounts/accounts_wire.h"
#include "accounts/audit_retention.h"
#include "accounts/identity_cache.h"
#include "accounts/login_limiter.h"
#include "accounts/passwords.h"
#include "accounts/recent_callers.h"

namespace lathe::accounts {

/// What the routes call. Safe from any thread.
class Service final : public Accounts {
 public:
  Service(db::Database& db, Audit& audit, IdSource& ids, const Clock& clock, Options options);
  Result<void> make_first_admin();
  void start_audit_retention();

  Result<http::Identity> authenticate(const http::Request& request) override;
  Result<http::Identity> check_password(std::string_view user_name, std::string_view password,
                                        const std::string& peer) override;
  Result<std::string> acting_for(const http::Identity& caller, std::string_view named_user_id,
                                 std::string_view field) override;
  Result<User> acting_for(const http::Identity& caller, const Named& named) override;
  Result<std::optional<std::string>> listing_for(const http::Identity& caller, std::string_view named_user_id,
                                                 std::string_view field) override;
  Result<User> user(std::string_view id) override;
  Result<User> user_named(std::string_view user_name) override;
  std::string name_of(std::string_view user_id) override;
  void guard_deletion(DeletionGuard guard) override { guards_.push_back(std::move(guard)); }
  void add_routes(http::Api& api) override;

  struct Session {
    std::string token;
    Time expires_at{};
    User user;
  };
  Result<Session> log_in(const wire::LogIn& in, const std::string& peer);
  Result<void> log_out(const http::Call& call);
  /// Ends every other session of the caller.
  Result<void> change_password(const http::Call& call, const wire::ChangePassword& in);

  Result<std::vector<store::KeyRow>> keys(const http::Identity& who, const http::SliceQuery& query);
  struct Key {
    store::KeyRow row;
    std::string secret;
  };
  /// The same id again (an Idempotency-Key repeated) gives the same key a fresh secret: the first answer was
  /// lost, or there would be no repeat.
  Result<Key> create_key(const http::Call& call, const wire::NewKey& in);
  Result<void> delete_key(const http::Call& call, std::string_view id);

  Result<std::vector<store::UserRow>> users(const http::SliceQuery& query);
  Result<User> create_user(const http::Call& call, const wire::NewUser& in);
  Result<User> patch_user(const http::Call& call, const wire::UserPatch& in);
  Result<void> delete_user(const http::Call& call, std::string_view id);

  Result<std::vector<store::AuditRow>> audit(const wire::AuditQuery& query);

 private:
  Result<Credential> look_up(const std::string& token_hash, bool is_key, Time now);
  bool expired(const Credential& credential, Time now) const;
  /// How old the mark of its last use may get.
  Duration touch_every(const Credential& credential) const;
  void touch(const std::string& token_hash, const Credential& credential, Time now);
  /// Until when, if nobody changes the account, the credential counts and asks for nothing to be written.
  Time valid_until(const Credential& credential) const;
  Result<User> user_of_field(std::string_view id, std::string_view field);
  /// After a change of the user is committed.
  void forget(const std::string& user_id);

  db::Database& db_;
  Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  const Options options_;
  Passwords passwords_;
  LoginLimiter limiter_;
  IdentityCache cache_;
  RecentCallers recent_;
  const std::string salt_ = random_hex(16);  ///< for passwords in the cache
  std::vector<DeletionGuard> guards_;

  struct KnownUser {
    User user;
    Time read_at{};
  };
  std::mutex users_mutex_;
  std::unordered_map<std::string, KnownUser> known_users_;
  std::uint64_t users_epoch_ = 0;
  std::unique_ptr<AuditRetention> audit_retention_;
};

/// BLAKE2b-256 of a token, in hexadecimal digits: what is stored of it.
std::string token_hash(std::string_view token);
inline constexpr std::string_view kKeyPrefix = "lathe_";

}  // namespace lathe::accounts
