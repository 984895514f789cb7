#include "accounts/accounts_service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

namespace lathe::accounts {

namespace {

constexpr std::int64_t kMostSessions = 1000;
constexpr std::int64_t kMostKeys = 200;

Error wrong_login() {
  return {Code::unauthenticated, {"用户名或密码错误", "wrong user name or password"}};
}

Error last_admin() {
  return {Code::failed_precondition,
          {"至少要保留一个启用的管理员", "at least one enabled administrator must remain"}};
}

Error no_user(std::string_view id) {
  return not_found({"用户", "user"}, id);
}

/// Creates or replaces the file, readable by its owner only, and puts it on the disk.
Result<void> write_secret(const std::string& path, const std::string& secret) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return system_error("open " + path, errno);
  const std::string line = secret + "\n";
  const bool written = ::fchmod(fd, 0600) == 0 &&
                       ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
                       ::fsync(fd) == 0;
  const int why = errno;
  ::close(fd);
  if (!written) return system_error("write " + path, why);
  return {};
}

}  // namespace

Result<std::unique_ptr<Accounts>> Accounts::open(db::Database& db, Audit& audit, IdSource& ids,
                                                 const Clock& clock, Options options) {
  auto service = std::make_unique<Service>(db, audit, ids, clock, std::move(options));
  TRY(service->make_first_admin());
  service->start_audit_retention();
  return std::unique_ptr<Accounts>(std::move(service));
}

Service::Service(db::Database& db, Audit& audit, IdSource& ids, const Clock& clock, Options options)
    : db_(db),
      audit_(audit),
      ids_(ids),
      clock_(clock),
      options_(std::move(options)),
      passwords_(options_.password_cost, options_.concurrent_checks),
      limiter_(clock) {}

Result<void> Service::make_first_admin() {
  const bool any = TRY(db_.read([](db::Transaction& tx) -> Result<bool> { return store::any_user(tx); }));
  if (any) return {};
  std::string password = options_.admin_password;
  if (password.empty()) {
    password = random_hex(12);
    // The file first: if only it survives, the next start makes both anew.
    TRY(write_secret(options_.initial_password_file, password));
  } else if (password.size() < wire::kShortestPassword) {
    return invalid_field("LATHE_ADMIN_PASSWORD", {"至少需要 8 个字符", "must have at least 8 characters"});
  }
  store::UserRow row{.user_name = "admin", .name_key = "admin", .admin = true, .created_at = clock_.now()};
  row.password = TRY(passwords_.hash(password));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    store::insert_user(tx, row);
    audit_.record(tx, {}, "", "user.create", "user", row.id, "admin, the first administrator");
    return {};
  }));
  if (options_.admin_password.empty()) {
    log::info("the first administrator is 'admin'; the password is in {}", options_.initial_password_file);
  } else {
    log::info("the first administrator is 'admin', with the password from LATHE_ADMIN_PASSWORD");
  }
  return {};
}

void Service::start_audit_retention() {
  if (options_.audit_retention == Duration{0}) return;
  audit_retention_ = std::make_unique<AuditRetention>(db_, clock_, options_.audit_retention);
  audit_retention_->start();
}

// --- for whom a request may act ----------------------------------------------------------------------------

Result<User> Service::user(std::string_view id) {
  const Time now = clock_.now();
  std::uint64_t epoch = 0;
  const std::string key(id);
  {
    const std::lock_guard lock(users_mutex_);
    epoch = users_epoch_;
    const auto it = known_users_.find(key);
    if (it != known_users_.end() && now - it->second.read_at < IdentityCache::kFresh) return it->second.user;
  }
  User found = TRY(db_.read([&](db::Transaction& tx) -> Result<User> {
    const auto row = store::user(tx, id);
    if (!row) return no_user(id);
    User read = row->user();
    read.password_mark = token_hash(row->password).substr(0, 32);
    return read;
  }));
  const std::lock_guard lock(users_mutex_);
  if (known_users_.size() > 10'000) known_users_.clear();
  if (epoch == users_epoch_) known_users_.insert_or_assign(key, KnownUser{found, now});
  return found;
}

Result<User> Service::user_named(std::string_view user_name) {
  return db_.read([&](db::Transaction& tx) -> Result<User> {
    const auto row = store::user_named(tx, store::name_key(user_name));
    if (!row) return no_user(user_name);
    return row->user();
  });
}

std::string Service::name_of(std::string_view user_id) {
  auto found = user(user_id);
  return found.ok() ? found->user_name : std::string();
}

void Service::forget(const std::string& user_id) {
  cache_.forget_user(user_id);
  const std::lock_guard lock(users_mutex_);
  ++users_epoch_;
  known_users_.erase(user_id);
}

Result<User> Service::user_of_field(std::string_view id, std::string_view field) {
  auto found = user(id);
  if (!found.ok() && found.error().code == Code::not_found)
    return invalid_field(std::string(field),
                         {"用户不存在：" + std::string(id), "no such user: " + std::string(id)});
  return found;
}

Result<std::string> Service::acting_for(const http::Identity& caller, std::string_view named_user_id,
                                        std::string_view field) {
  if (named_user_id.empty() || named_user_id == caller.user_id) return caller.user_id;
  if (!caller.admin)
    return Error{
        Code::permission_denied,
        {"不能代表其他用户操作", "you may not act for another user"},
        {{std::string(field), {"应为您自己的用户 ID，或留空", "must be your own user id, or empty"}}}};
  return TRY(user_of_field(named_user_id, field)).id;
}

Result<User> Service::acting_for(const http::Identity& caller, const Named& named) {
  if (named.login_user == 0 && !caller.admin)
    return Error{Code::permission_denied,
                 {"您不是管理员", "you are not an administrator"},
                 {{"loginUser", {"普通用户应为 1", "must be 1 for an ordinary user"}}}};
  const std::string name_field(named.user_name_field);
  if (!named.user_id.empty() || named.user_name.empty()) {
    const std::string id = TRY(acting_for(caller, named.user_id, named.user_id_field));
    User found = TRY(user_of_field(id, named.user_id_field));
    const bool name_fits =
        named.user_name.empty() || store::name_key(named.user_name) == store::name_key(found.user_name);
    if (name_fits) return found;
    const Text why{"与 " + std::string(named.user_id_field) + " 不是同一用户",
                   "is not the user that " + std::string(named.user_id_field) + " names"};
    if (caller.admin) return invalid_field(name_field, why);
    return Error{Code::permission_denied,
                 {"不能代表其他用户操作", "you may not act for another user"},
                 {{name_field, why}}};
  }
  if (store::name_key(named.user_name) == store::name_key(caller.user_name)) return user(caller.user_id);
  if (!caller.admin)
    return Error{Code::permission_denied,
                 {"不能代表其他用户操作", "you may not act for another user"},
                 {{name_field, {"应为您自己的用户名，或留空", "must be your own user name, or empty"}}}};
  return db_.read([&](db::Transaction& tx) -> Result<User> {
    const auto row = store::user_named(tx, named.user_name);
    if (row) return row->user();
    const std::string name(named.user_name);
    return invalid_field(name_field, {"用户不存在：" + name, "no such user: " + name});
  });
}

Result<std::optional<std::string>> Service::listing_for(const http::Identity& caller,
                                                        std::string_view named_user_id,
                                                        std::string_view field) {
  if (named_user_id.empty() && caller.admin) return std::optional<std::string>();
  return std::optional<std::string>(TRY(acting_for(caller, named_user_id, field)));
}

// --- sessions ----------------------------------------------------------------------------------------------

Result<Service::Session> Service::log_in(const wire::LogIn& in, const std::string& peer) {
  const std::string name = store::name_key(in.user_name);
  TRY(limiter_.begin(name, peer));
  const auto row = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::UserRow>> {
    return store::user_named(tx, name);
  }));
  if (!TRY(passwords_.verify(row ? row->password : std::string(), in.password))) {
    log::warning("a login of '{}' from {} was refused", name, peer);
    return wrong_login();
  }
  limiter_.succeeded(name, peer);

  const Time now = clock_.now();
  const std::string token = random_hex(32);
  return db_.write([&](db::Transaction& tx) -> Result<Session> {
    const auto fresh = store::user(tx, row->id);
    if (!fresh || fresh->password != row->password) return wrong_login();
    if (fresh->disabled) return Error{Code::permission_denied, {"账号已停用", "this account is disabled"}};
    store::SessionRow session{
        ids_.next(), token_hash(token), row->id, now, now, now + options_.sessions.absolute, peer};
    store::insert_session(tx, session);
    store::trim_sessions(tx, row->id, kMostSessions, now);
    audit_.record(tx, {fresh->id, fresh->user_name, fresh->admin}, peer, "session.create", "session",
                  session.id);
    return Session{token, std::min(session.expires_at, now + options_.sessions.idle), fresh->user()};
  });
}

Result<void> Service::log_out(const http::Call& call) {
  const auto header = call.request.headers.get("authorization");
  const std::string hash = token_hash(header.substr(header.find_last_of(' ') + 1));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    const auto session = store::session(tx, hash);
    if (!session)
      return Error{Code::failed_precondition,
                   {"该请求使用的是 API 密钥，没有会话可退出",
                    "this request was made with an API key: there is no session to end"}};
    store::delete_session(tx, hash);
    audit_.record(tx, call, "session.delete", "session", session->id);
    return {};
  }));
  cache_.forget_token(hash);
  return {};
}

Result<void> Service::change_password(const http::Call& call, const wire::ChangePassword& in) {
  const std::string name = store::name_key(call.caller.user_name);
  TRY(limiter_.begin(name, call.request.peer));
  const auto row = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::UserRow>> {
    return store::user(tx, call.caller.user_id);
  }));
  if (!TRY(passwords_.verify(row ? row->password : std::string(), in.current_password)))
    return invalid_field("currentPassword", {"密码错误", "is not the current password"});
  limiter_.succeeded(name, call.request.peer);
  const std::string hash = TRY(passwords_.hash(in.password));
  const auto header = call.request.headers.get("authorization");
  const std::string this_session = token_hash(header.substr(header.find_last_of(' ') + 1));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    auto fresh = store::user(tx, call.caller.user_id);
    if (!fresh) return no_user(call.caller.user_id);
    fresh->password = hash;
    store::update_user(tx, *fresh);
    store::delete_sessions(tx, fresh->id, this_session);
    audit_.record(tx, call, "user.changePassword", "user", fresh->id);
    return {};
  }));
  forget(call.caller.user_id);
  // What the file says is not true any more.
  if (call.caller.user_name == "admin" && !options_.initial_password_file.empty())
    ::unlink(options_.initial_password_file.c_str());
  return {};
}

// --- API keys ----------------------------------------------------------------------------------------------

Result<std::vector<store::KeyRow>> Service::keys(const http::Identity& who, const http::SliceQuery& query) {
  return db_.read([&](db::Transaction& tx) -> Result<std::vector<store::KeyRow>> {
    return store::keys(tx, who.user_id, query.cursor, query.limit());
  });
}

Result<Service::Key> Service::create_key(const http::Call& call, const wire::NewKey& in) {
  const Time now = clock_.now();
  if (in.expires_at && *in.expires_at <= now)
    return invalid_field("expiresAt", {"应晚于当前时间", "must be in the future"});
  const std::string secret = std::string(kKeyPrefix) + random_hex(32);
  store::KeyRow row{.id = call.new_id(),
                    .token_hash = token_hash(secret),
                    .user_id = call.caller.user_id,
                    .name = in.name,
                    .hint = secret.substr(0, kKeyPrefix.size() + 6),
                    .created_at = now,
                    .last_used_at = {},
                    .expires_at = in.expires_at};
  std::string replaced;
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    if (const auto before = store::key(tx, row.id)) {
      replaced = before->token_hash;
      row.created_at = before->created_at;
      store::update_key(tx, row);
      return {};
    }
    if (store::count_keys(tx, row.user_id) >= kMostKeys)
      return Error{Code::resource_exhausted,
                   {fmt::format("每个用户最多 {} 个 API 密钥", kMostKeys),
                    fmt::format("a user may have at most {} API keys", kMostKeys)}};
    store::insert_key(tx, row);
    audit_.record(tx, call, "apiKey.create", "apiKey", row.id, row.name);
    return {};
  }));
  if (!replaced.empty()) cache_.forget_token(replaced);
  return Key{std::move(row), secret};
}

Result<void> Service::delete_key(const http::Call& call, std::string_view id) {
  const std::string hash = TRY(db_.write([&](db::Transaction& tx) -> Result<std::string> {
    const auto row = store::key(tx, id);
    if (!row || (row->user_id != call.caller.user_id && !call.caller.admin))
      return not_found({"API 密钥", "API key"}, id);
    store::delete_key(tx, id);
    audit_.record(tx, call, "apiKey.delete", "apiKey", id, row->name);
    return row->token_hash;
  }));
  cache_.forget_token(hash);
  return {};
}

// --- users -------------------------------------------------------------------------------------------------

Result<std::vector<store::UserRow>> Service::users(const http::SliceQuery& query) {
  return db_.read([&](db::Transaction& tx) -> Result<std::vector<store::UserRow>> {
    return store::users(tx, query.cursor, query.limit());
  });
}

Result<User> Service::create_user(const http::Call& call, const wire::NewUser& in) {
  store::UserRow row{.creation_id = call.new_id(),
                     .user_name = in.user_name,
                     .name_key = store::name_key(in.user_name),
                     .admin = in.role == "admin",
                     .created_at = clock_.now()};
  row.password = TRY(passwords_.hash(in.password));
  return db_.write([&](db::Transaction& tx) -> Result<User> {
    if (const auto before = store::user_created_by(tx, *row.creation_id)) return before->user();
    if (store::user_named(tx, in.user_name))
      return Error{Code::already_exists,
                   {"用户名已被使用", "the user name is taken"},
                   {{"userName", {"已存在：" + in.user_name, "exists already: " + in.user_name}}}};
    store::insert_user(tx, row);
    audit_.record(tx, call, "user.create", "user", row.id, row.user_name + ", " + in.role);
    return row.user();
  });
}

Result<User> Service::patch_user(const http::Call& call, const wire::UserPatch& in) {
  std::string hash;
  if (!in.password.empty()) hash = TRY(passwords_.hash(in.password));
  User changed = TRY(db_.write([&](db::Transaction& tx) -> Result<User> {
    auto row = store::user(tx, in.id);
    if (!row) return no_user(in.id);
    std::string what;
    if (in.role) {
      row->admin = *in.role == "admin";
      what += "role " + *in.role + " ";
    }
    if (in.disabled) {
      row->disabled = *in.disabled;
      what += *in.disabled ? "disabled " : "enabled ";
    }
    if (!hash.empty()) {
      row->password = hash;
      what += "password ";
      store::delete_sessions(tx, row->id, "");
    }
    if (row->disabled) store::delete_sessions(tx, row->id, "");
    store::update_user(tx, *row);
    if (store::enabled_admins(tx) == 0) return last_admin();
    if (!what.empty()) what.pop_back();
    audit_.record(tx, call, "user.update", "user", row->id, what);
    return row->user();
  }));
  forget(changed.id);
  return changed;
}

Result<void> Service::delete_user(const http::Call& call, std::string_view id) {
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    const auto row = store::user(tx, id);
    if (!row) return no_user(id);
    for (const auto& guard : guards_) TRY(guard(tx, id));
    store::delete_user(tx, id);
    if (store::enabled_admins(tx) == 0) return last_admin();
    audit_.record(tx, call, "user.delete", "user", id, row->user_name);
    return {};
  }));
  forget(std::string(id));
  return {};
}

Result<std::vector<store::AuditRow>> Service::audit(const wire::AuditQuery& query) {
  return db_.read([&](db::Transaction& tx) -> Result<std::vector<store::AuditRow>> {
    return store::audit(tx, {query.user_id, query.action, query.object_kind, query.object_id}, query.cursor,
                        query.limit());
  });
}

}  // namespace lathe::accounts
