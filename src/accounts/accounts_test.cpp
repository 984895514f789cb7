#include "accounts/accounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "accounts/accounts_service.h"
#include "accounts/idempotency.h"
#include "db/test_database.h"

namespace lathe::accounts {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr std::string_view kPassword = "correct horse";

/// Stands still until told otherwise; may be read by several threads.
class SteppedClock final : public Clock {
 public:
  Time now() const override { return Time{Duration{now_.load()}}; }
  void advance(Duration by) { now_ += by.count(); }

 private:
  std::atomic<std::int64_t> now_{1'700'000'000'000};
};

class AccountsTest : public testing::Test {
 protected:
  AccountsTest() { admin_ = {"1", "admin", true}; }

  std::unique_ptr<Service> open() {
    Options options;
    options.password_cost = {1, 8192};
    options.admin_password = kPassword;
    options.sessions = {std::chrono::hours{1}, std::chrono::hours{5}};
    auto service = std::make_unique<Service>(*db_, audit_, ids_, clock_, options);
    const auto made = service->make_first_admin();
    EXPECT_TRUE(made.ok()) << made.error().describe(Language::en);
    return service;
  }

  http::Call call(const http::Identity& caller, std::string token = {}) {
    request_.peer = "192.0.2.7";
    request_.headers = {};
    if (!token.empty()) request_.headers.add("Authorization", "Bearer " + token);
    return {request_, caller, [this] { return ids_.next(); }};
  }

  http::Identity new_user(const std::string& name, const std::string& role = "user") {
    auto user = accounts_->create_user(call(admin_), {name, std::string(kPassword), role});
    EXPECT_TRUE(user.ok());
    return {user->id, user->user_name, user->admin};
  }

  Result<http::Identity> authenticate(const std::string& header) {
    http::Request request;
    if (!header.empty()) request.headers.add("Authorization", header);
    return accounts_->authenticate(request);
  }
  bool valid(const std::string& token) { return authenticate("Bearer " + token).ok(); }

  std::string log_in(const std::string& name) {
    auto session = accounts_->log_in({name, std::string(kPassword)}, "192.0.2.7");
    EXPECT_TRUE(session.ok()) << session.error().describe(Language::en);
    return session.ok() ? session->token : "";
  }

  std::int64_t count(const std::string& sql) {
    return db_->read([&](db::Transaction& tx) -> Result<std::int64_t> { return tx.query(sql).integer(0, 0); })
        .value();
  }

  SteppedClock clock_;
  Uuid7Source ids_{clock_};
  std::unique_ptr<db::Database> db_ = db::open_test_database();
  Audit audit_{ids_, clock_};
  http::Identity admin_;
  http::Request request_;
  std::unique_ptr<Service> accounts_ = open();
};

TEST_F(AccountsTest, TheFirstAdministratorIsMadeOnce) {
  accounts_ = open();
  EXPECT_EQ(count("SELECT count(*) AS n FROM users"), 1);
  EXPECT_TRUE(valid(log_in("admin")));
}

TEST_F(AccountsTest, ATokenIsItsHolderAndNobodyElse) {
  const auto li = new_user("li");
  const std::string token = log_in("li");
  const auto who = authenticate("bearer " + token);
  ASSERT_TRUE(who.ok());
  EXPECT_EQ(who->user_id, li.user_id);
  EXPECT_EQ(who->user_name, "li");
  EXPECT_FALSE(who->admin);
  EXPECT_EQ(authenticate("")->user_id, "");
  for (const char* header : {"Bearer", "Bearer x", "Basic x", "Negotiate abc"})
    EXPECT_EQ(authenticate(header).error().code, Code::unauthenticated) << header;
}

TEST_F(AccountsTest, SessionsSlideUntilTheirAbsoluteEnd) {
  const std::string idle = log_in("admin"), used = log_in("admin");
  for (int step = 0; step < 9; ++step) {
    clock_.advance(std::chrono::minutes{33});
    EXPECT_TRUE(valid(used)) << step;
  }
  EXPECT_FALSE(valid(idle));
  clock_.advance(std::chrono::minutes{4});
  EXPECT_FALSE(valid(used));
}

TEST_F(AccountsTest, UseIsWrittenDownAtMostOnceAMinute) {
  auto key = accounts_->create_key(call(admin_), {"ci", {}});
  ASSERT_TRUE(key.ok());
  auto last_used = [&] { return count("SELECT last_used_at FROM api_keys"); };
  EXPECT_EQ(last_used(), 0);
  EXPECT_TRUE(valid(key->secret));
  const auto first = last_used();
  EXPECT_EQ(first, clock_.now().time_since_epoch().count());
  clock_.advance(std::chrono::seconds{50});
  EXPECT_TRUE(valid(key->secret));
  EXPECT_EQ(last_used(), first);
  clock_.advance(std::chrono::seconds{20});
  EXPECT_TRUE(valid(key->secret));
  EXPECT_EQ(last_used(), first + 70'000);
}

TEST_F(AccountsTest, WhatIsTakenAwayIsGoneFromMemoryToo) {
  const auto li = new_user("li");
  const std::string session = log_in("li");
  auto key = accounts_->create_key(call(li), {"ci", {}});
  ASSERT_TRUE(key.ok() && valid(session) && valid(key->secret));

  ASSERT_TRUE(accounts_->log_out(call(li, session)).ok());
  EXPECT_FALSE(valid(session));
  ASSERT_TRUE(accounts_->patch_user(call(admin_), {li.user_id, "", "admin", {}}).ok());
  EXPECT_TRUE(authenticate("Bearer " + key->secret)->admin);
  ASSERT_TRUE(accounts_->patch_user(call(admin_), {li.user_id, "", {}, true}).ok());
  EXPECT_FALSE(valid(key->secret));
  ASSERT_TRUE(accounts_->patch_user(call(admin_), {li.user_id, "", {}, false}).ok());
  EXPECT_TRUE(valid(key->secret));
  ASSERT_TRUE(accounts_->delete_key(call(admin_), key->row.id).ok());
  EXPECT_FALSE(valid(key->secret));
}

TEST_F(AccountsTest, AChangeIsSeenByWhateverIsKeptElsewhere) {
  IdentityCache cache;
  for (const auto& forget :
       {+[](IdentityCache& c) { c.forget_token("hash"); }, +[](IdentityCache& c) { c.forget_user("7"); }}) {
    cache.put("hash", {.who = {"7", "li", false}}, cache.epoch());
    const auto before = cache.epoch();
    EXPECT_TRUE(cache.find("hash", Time{}));
    forget(cache);
    EXPECT_GE(cache.epoch(), before + 2) << "once before the token is gone and once after";
    EXPECT_FALSE(cache.find("hash", Time{}));
  }
}

TEST_F(AccountsTest, ATokenReadBeforeAChangeIsNotRememberedAfterIt) {
  IdentityCache cache;
  Credential credential{.who = {"7", "li", false}};
  const auto epoch = cache.epoch();
  cache.forget_user("7");
  cache.put("hash", credential, epoch);
  EXPECT_FALSE(cache.find("hash", Time{}));
  cache.put("hash", credential, cache.epoch());
  EXPECT_TRUE(cache.find("hash", Time{}));
  EXPECT_FALSE(cache.find("hash", Time{} + IdentityCache::kFresh));
}

TEST_F(AccountsTest, ActsForOthersOnlyAsAnAdministrator) {
  const auto li = new_user("Li"), wang = new_user("wang");
  EXPECT_EQ(accounts_->acting_for(li, "", "userId").value(), li.user_id);
  EXPECT_EQ(accounts_->acting_for(li, li.user_id, "userId").value(), li.user_id);
  const auto refused = accounts_->acting_for(li, wang.user_id, "createUser");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::permission_denied);
  EXPECT_THAT(refused.error().describe(Language::en), HasSubstr("createUser"));
  EXPECT_EQ(accounts_->acting_for(li, "999", "userId").error().code, Code::permission_denied);
  EXPECT_EQ(accounts_->acting_for(admin_, wang.user_id, "userId").value(), wang.user_id);
  EXPECT_EQ(accounts_->acting_for(admin_, "999", "userId").error().violations.at(0).field, "userId");

  EXPECT_EQ(accounts_->listing_for(li, "", "userId").value(), li.user_id);
  EXPECT_EQ(accounts_->listing_for(admin_, "", "userId").value(), std::nullopt);
  EXPECT_EQ(accounts_->listing_for(admin_, wang.user_id, "userId").value(), wang.user_id);
}

TEST_F(AccountsTest, WhatIsSaidOfAUserMustFitTogether) {
  const auto li = new_user("Li"), wang = new_user("wang");
  struct Case {
    const char* what;
    http::Identity caller;
    Named named;
    std::optional<Code> refused;
    std::string user_id, field;
  };
  const Case cases[] = {
      {"nothing", li, {}, {}, li.user_id, ""},
      {"own name in other case", li, {.user_name = "LI"}, {}, li.user_id, ""},
      {"own id and name",
       li,
       {.user_id = li.user_id, .user_name = "Li", .login_user = 1},
       {},
       li.user_id,
       ""},
      {"another's name", li, {.user_name = "wang"}, Code::permission_denied, "", "userName"},
      {"own id, another's name",
       li,
       {.user_id = li.user_id, .user_name = "wang"},
       Code::permission_denied,
       "",
       "userName"},
      {"claims to be an admin", li, {.login_user = 0}, Code::permission_denied, "", "loginUser"},
      {"admin by name", admin_, {.user_name = "wang", .login_user = 0}, {}, wang.user_id, ""},
      {"admin by id", admin_, {.user_id = wang.user_id, .login_user = 1}, {}, wang.user_id, ""},
      {"admin, contradiction",
       admin_,
       {.user_id = wang.user_id, .user_name = "Li"},
       Code::invalid_argument,
       "",
       "userName"},
      {"admin, nobody", admin_, {.user_name = "zhao"}, Code::invalid_argument, "", "userName"},
      {"another field name",
       admin_,
       {.user_id = "77", .user_id_field = "createUser"},
       Code::invalid_argument,
       "",
       "createUser"},
  };
  for (const Case& c : cases) {
    const auto user = accounts_->acting_for(c.caller, c.named);
    ASSERT_EQ(user.ok(), !c.refused) << c.what;
    if (user.ok()) {
      EXPECT_EQ(user->id, c.user_id) << c.what;
    } else {
      EXPECT_EQ(user.error().code, *c.refused) << c.what;
      EXPECT_EQ(user.error().violations.at(0).field, c.field) << c.what;
    }
  }
}

TEST_F(AccountsTest, OneEnabledAdministratorRemains) {
  const auto second = new_user("second", "admin");
  ASSERT_TRUE(accounts_->patch_user(call(admin_), {second.user_id, "", {}, true}).ok());
  EXPECT_EQ(accounts_->patch_user(call(admin_), {"1", "", "user", {}}).error().code,
            Code::failed_precondition);
  EXPECT_EQ(accounts_->patch_user(call(admin_), {"1", "", {}, true}).error().code, Code::failed_precondition);
  EXPECT_EQ(accounts_->delete_user(call(admin_), "1").error().code, Code::failed_precondition);
  EXPECT_TRUE(accounts_->user("1")->admin);
  ASSERT_TRUE(accounts_->patch_user(call(admin_), {second.user_id, "", {}, false}).ok());
  EXPECT_TRUE(accounts_->delete_user(call(admin_), "1").ok());
}

TEST_F(AccountsTest, AGuardKeepsAUserWhoStillHasSomething) {
  const auto li = new_user("li");
  bool busy = true;
  accounts_->guard_deletion([&](db::Transaction&, std::string_view user_id) -> Result<void> {
    EXPECT_EQ(user_id, li.user_id);
    if (busy) return Error{Code::failed_precondition, {"有作业", "has jobs"}};
    return {};
  });
  EXPECT_EQ(accounts_->delete_user(call(admin_), li.user_id).error().message.en, "has jobs");
  EXPECT_TRUE(accounts_->user(li.user_id).ok());
  busy = false;
  EXPECT_TRUE(accounts_->delete_user(call(admin_), li.user_id).ok());
  EXPECT_EQ(accounts_->user(li.user_id).error().code, Code::not_found);
  EXPECT_EQ(accounts_->name_of(li.user_id), "");
}

TEST_F(AccountsTest, IdsAreNeverGivenTwice) {
  const auto li = new_user("li");
  ASSERT_TRUE(accounts_->delete_user(call(admin_), li.user_id).ok());
  EXPECT_NE(new_user("li").user_id, li.user_id);
}

TEST_F(AccountsTest, GuessingIsLimitedByNameAndAddress) {
  const wire::LogIn wrong{"admin", "wrong password"}, right{"admin", std::string(kPassword)};
  for (int i = 0; i < LoginLimiter::kTries; ++i)
    EXPECT_EQ(accounts_->log_in(wrong, "192.0.2.1").error().code, Code::unauthenticated);
  clock_.advance(std::chrono::seconds{20});
  const auto limited = accounts_->log_in(right, "192.0.2.1");
  EXPECT_EQ(limited.error().code, Code::resource_exhausted);
  EXPECT_EQ(limited.error().retry_after, std::chrono::seconds{40});
  EXPECT_TRUE(accounts_->log_in(right, "192.0.2.2").ok());
  clock_.advance(std::chrono::seconds{40});
  EXPECT_TRUE(accounts_->log_in(right, "192.0.2.1").ok());
}

TEST_F(AccountsTest, PasswordsAreCheckedFewAtATime) {
  Passwords passwords({1, 8192}, 1);
  const std::string hash = passwords.hash("secret").value();
  EXPECT_THAT(hash, testing::StartsWith("$argon2id$"));
  std::atomic<int> right{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { right += passwords.verify(hash, "secret").value(); });
  threads.clear();
  EXPECT_EQ(right, 8);
  EXPECT_FALSE(passwords.verify(hash, "Secret").value());
  EXPECT_FALSE(passwords.verify("", "secret").value());
  EXPECT_FALSE(passwords.verify("", "").value());
}

TEST_F(AccountsTest, TheTrailIsWrittenWithTheChangeOrNotAtAll) {
  const auto li = new_user("li");
  const auto before = count("SELECT count(*) AS n FROM audit");
  const auto undone = db_->write([&](db::Transaction& tx) -> Result<void> {
    audit_.record(tx, call(li), "thing.create", "thing", "t1");
    return Error{Code::cancelled, {}};
  });
  EXPECT_FALSE(undone.ok());
  EXPECT_EQ(count("SELECT count(*) AS n FROM audit"), before);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(db_->write([&](db::Transaction& tx) -> Result<void> {
                     audit_.record(tx, call(li), "thing.create", "thing", "t" + std::to_string(i), "detail");
                     return {};
                   })
                    .ok());
  }
  wire::AuditQuery query;
  query.action = "thing.create";
  query.user_id = li.user_id;
  query.pageSize = 2;
  auto rows = accounts_->audit(query).value();
  ASSERT_THAT(rows, SizeIs(3)) << "one more than a slice";
  EXPECT_EQ(rows[0].object_id, "t2");
  EXPECT_EQ(rows[0].peer, "192.0.2.7");
  EXPECT_EQ(rows[0].user_name, "li");
  query.cursor = rows[1].id;
  EXPECT_THAT(accounts_->audit(query).value(), SizeIs(1));
}

TEST_F(AccountsTest, APasswordMayStandInForATokenUntilTheAccountChanges) {
  const auto li = new_user("Li");
  const std::string peer = "192.0.2.9";
  EXPECT_EQ(accounts_->check_password("lI", kPassword, peer)->user_id, li.user_id);
  EXPECT_EQ(accounts_->check_password("li", kPassword, peer)->user_name, "Li");
  EXPECT_EQ(accounts_->user_named("LI")->id, li.user_id);
  EXPECT_EQ(accounts_->user_named("none").error().code, Code::not_found);
  ASSERT_TRUE(accounts_->change_password(call(li), {std::string(kPassword), "a better one"}).ok());
  EXPECT_EQ(accounts_->check_password("li", kPassword, peer).error().code, Code::unauthenticated);
  EXPECT_TRUE(accounts_->check_password("li", "a better one", peer).ok());
  wire::UserPatch patch;
  patch.id = li.user_id;
  patch.disabled = true;
  ASSERT_TRUE(accounts_->patch_user(call(admin_), patch).ok());
  EXPECT_EQ(accounts_->check_password("li", "a better one", peer).error().code, Code::unauthenticated);
  EXPECT_EQ(accounts_->check_password("nobody", kPassword, peer).error().code, Code::unauthenticated);
  for (int i = 0; i < LoginLimiter::kTries; ++i) (void)accounts_->check_password("admin", "wrong", peer);
  EXPECT_EQ(accounts_->check_password("admin", kPassword, peer).error().code, Code::resource_exhausted);
}

TEST_F(AccountsTest, AnIdempotencyKeyKeepsItsIdForADay) {
  Idempotency idempotency(*db_, ids_, clock_);
  const http::Identity li{"7", "li", false}, wang{"8", "wang", false};
  const std::string id = idempotency.reserve(li, "k", "createJob", "digest").value();
  EXPECT_EQ(idempotency.reserve(li, "k", "createJob", "digest").value(), id);
  EXPECT_NE(idempotency.reserve(wang, "k", "createJob", "digest").value(), id);
  EXPECT_NE(idempotency.reserve(li, "k", "createModel", "digest").value(), id);
  EXPECT_EQ(idempotency.reserve(li, "k", "createJob", "other").error().code, Code::unsatisfiable);
  EXPECT_EQ(idempotency.reserve(li, "", "createJob", "d").error().code, Code::invalid_argument);
  EXPECT_EQ(idempotency.reserve(li, std::string(256, 'x'), "createJob", "d").error().code,
            Code::invalid_argument);
  clock_.advance(std::chrono::hours{25});
  EXPECT_NE(idempotency.reserve(li, "k", "createJob", "other").value(), id);
  EXPECT_EQ(count("SELECT count(*) AS n FROM idempotency_keys"), 1);
}

TEST_F(AccountsTest, NoHashThatAPasswordCouldBeGuessedFromIsKept) {
  Idempotency idempotency(*db_, ids_, clock_);
  ASSERT_TRUE(idempotency.reserve(admin_, "k", "createUser", "digest-of-a-password").ok());
  EXPECT_EQ(count("SELECT count(*) AS n FROM idempotency_keys WHERE digest <> ''"), 0);
  ASSERT_TRUE(idempotency.reserve({}, "k", "createSession", "digest-of-a-password").ok());
  EXPECT_EQ(count("SELECT count(*) AS n FROM idempotency_keys"), 1);
}

TEST_F(AccountsTest, RepeatedRequestsRacingForAKeyGetOneId) {
  Idempotency idempotency(*db_, ids_, clock_);
  std::vector<std::string> got(8);
  {
    std::vector<std::jthread> threads;
    for (auto& id : got)
      threads.emplace_back([&] {
        id = idempotency.reserve({"7", "li", false}, "k", "createJob", "d").value();
      });
  }
  EXPECT_THAT(got, testing::Each(got[0]));
}

TEST(AccountsStart, APasswordIsMadeWhereNoneIsGiven) {
  SystemClock clock;
  Uuid7Source ids{clock};
  Audit audit{ids, clock};
  db::TestFolder folder;
  auto db = db::open_test_database();
  Options options;
  options.password_cost = {1, 8192};
  options.initial_password_file = folder.file("initial-admin-password");
  ASSERT_TRUE(Accounts::open(*db, audit, ids, clock, options).ok());
  std::ifstream file(options.initial_password_file);
  std::string password;
  std::getline(file, password);
  EXPECT_THAT(password, SizeIs(24));
  options.admin_password = "short";
  auto other = db::open_test_database();
  EXPECT_EQ(Accounts::open(*other, audit, ids, clock, options).error().violations.at(0).field,
            "LATHE_ADMIN_PASSWORD");
}

}  // namespace
}  // namespace lathe::accounts
