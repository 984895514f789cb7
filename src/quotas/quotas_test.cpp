#include "quotas/quotas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "db/test_database.h"
#include "quotas/quotas_service.h"

namespace lathe::quotas {
namespace {

using testing::HasSubstr;

constexpr Time kNow{std::chrono::hours{1000}};

TEST(Admission, TellsNeverFromLaterFromNow) {
  struct Case {
    const char* what;
    Quota quota;
    Compute used, request;
    Admission expected;
    const char* names = "";
  };
  const Case cases[] = {
      {"no quota", {}, {.cpu = 1000}, {.cpu = 1000, .jobs = 1}, Admission::fits},
      {"exactly full", {.cpu = 8}, {.cpu = 4}, {.cpu = 4}, Admission::fits},
      {"thirds add up", {.cpu = 1}, {.cpu = 1.0 / 3 + 1.0 / 3}, {.cpu = 1.0 / 3}, Admission::fits},
      {"over by little", {.cpu = 8}, {.cpu = 4.5}, {.cpu = 4}, Admission::waiting_for_quota, "CPU"},
      {"alone too large", {.cpu = 8}, {}, {.cpu = 9}, Admission::exceeds_max_quota, "CPU"},
      {"memory waits",
       {.memory_gb = 4},
       {.memory_gb = 3},
       {.memory_gb = 2},
       Admission::waiting_for_quota,
       "memory"},
      {"gpu never", {.gpu = 0}, {}, {.gpu = 1}, Admission::exceeds_max_quota, "GPU"},
      {"gpu not asked for", {.gpu = 0}, {.gpu = 2}, {.cpu = 1}, Admission::fits},
      {"vgpu waits", {.vgpu = 3}, {.vgpu = 2}, {.vgpu = 2}, Admission::waiting_for_quota, "vGPU"},
      {"mig never", {.mig = 1}, {}, {.mig = 2}, Admission::exceeds_max_quota, "MIG"},
      {"jobs wait", {.jobs = 2}, {.jobs = 2}, {.jobs = 1}, Admission::waiting_for_quota, "jobs"},
      {"no jobs at all", {.jobs = 0}, {}, {.jobs = 1}, Admission::exceeds_max_quota, "jobs"},
      {"never wins over later",
       {.cpu = 8, .jobs = 1},
       {.jobs = 1},
       {.cpu = 9, .jobs = 1},
       Admission::exceeds_max_quota,
       "CPU"},
      {"not yet valid",
       {.start_time = kNow + Duration{1}},
       {},
       {.jobs = 1},
       Admission::quota_expired,
       "begins"},
      {"valid from now", {.start_time = kNow}, {}, {.jobs = 1}, Admission::fits},
      {"valid until now", {.end_time = kNow}, {}, {.jobs = 1}, Admission::quota_expired, "ended"},
      {"valid a moment more", {.end_time = kNow + Duration{1}}, {}, {.jobs = 1}, Admission::fits},
      {"expired beats waiting",
       {.jobs = 1, .end_time = kNow},
       {.jobs = 1},
       {.jobs = 1},
       Admission::quota_expired,
       "ended"},
      {"never beats expired",
       {.cpu = 1, .end_time = kNow},
       {},
       {.cpu = 2},
       Admission::exceeds_max_quota,
       "CPU"},
  };
  for (const Case& c : cases) {
    const Verdict verdict = check(c.quota, c.used, c.request, kNow);
    EXPECT_EQ(verdict.admission, c.expected) << c.what;
    EXPECT_THAT(verdict.detail.en, HasSubstr(c.names)) << c.what;
    EXPECT_EQ(verdict.detail.zh.empty(), c.expected == Admission::fits) << c.what;
    EXPECT_EQ(refuse_never(verdict).ok(), c.expected != Admission::exceeds_max_quota) << c.what;
  }
  const auto refused = refuse_never(check({.cpu = 1}, {}, {.cpu = 2}, kNow));
  EXPECT_EQ(refused.error().code, Code::unsatisfiable);
  EXPECT_EQ(refused.error().message.en,
            "more than the user's whole quota: CPU cores: 2 asked for, the quota is 1");
}

TEST(Sizes, AreShownInTheLargestUnit) {
  EXPECT_EQ(format_size(0), "0B");
  EXPECT_EQ(format_size(1023), "1023B");
  EXPECT_EQ(format_size(1536), "1.5KB");
  EXPECT_EQ(format_size(std::int64_t{100} << 30), "100GB");
  EXPECT_EQ(format_size((std::int64_t{1} << 40) + (std::int64_t{1} << 38)), "1.25TB");
}

TEST(Machine, HasCoresAndMemory) {
  const Compute machine = machine_capacity();
  EXPECT_GT(machine.cpu, 0);
  EXPECT_GT(machine.memory_gb, 0.01);
  EXPECT_LT(machine.memory_gb, 1e6);
}

class FixedUsage final : public UsageSource, public StorageSource {
 public:
  Compute usage_of(db::Transaction&, std::string_view user_id) override {
    return user_id == "1" ? Compute{.cpu = 1.5, .memory_gb = 2, .jobs = 1} : Compute{};
  }
  Compute total_usage(db::Transaction&) override { return {.cpu = 2.5, .memory_gb = 3, .gpu = 1, .jobs = 2}; }
  Storage storage_of(db::Transaction&, std::string_view) override { return {1 << 20, 10}; }
};

class QuotasTest : public testing::Test {
 protected:
  QuotasTest() {
    accounts::Options options;
    options.password_cost = {1, 8192};
    options.admin_password = "correct horse";
    accounts_ = accounts::Accounts::open(*db_, audit_, ids_, clock_, options).value();
    quotas_ = std::make_unique<Service>(*db_, *accounts_, audit_, ids_, clock_,
                                        Compute{.cpu = 16, .memory_gb = 64, .gpu = 2});
    EXPECT_TRUE(quotas_->make_default_group().ok());
    // An ordinary user, with no more than these tests need.
    EXPECT_TRUE(db_->write([](db::Transaction& tx) -> Result<void> {
                     tx.execute(
                         "INSERT INTO users (id, number, user_name, name_key, password, admin, disabled, "
                         "created_at) VALUES ('7', 7, 'li', 'li', 'x', 0, 0, 0)");
                     return {};
                   })
                    .ok());
  }
  http::Call call() {
    return {request_, admin_, [this] { return ids_.next(); }};
  }

  SystemClock clock_;
  Uuid7Source ids_{clock_};
  std::unique_ptr<db::Database> db_ = db::open_test_database();
  accounts::Audit audit_{ids_, clock_};
  std::unique_ptr<accounts::Accounts> accounts_;
  std::unique_ptr<Service> quotas_;
  http::Identity admin_{"1", "admin", true}, li_{"7", "li", false};
  http::Request request_;
};

TEST_F(QuotasTest, WhatIsLeftIsTheQuotaLessTheUsersOwnUse) {
  FixedUsage usage, more;
  quotas_->add_source(static_cast<UsageSource&>(usage));
  quotas_->add_source(static_cast<UsageSource&>(more));
  ASSERT_TRUE(quotas_->put_quota(call(), "1", {.cpu = 4, .gpu = 1, .jobs = 10}).ok());
  const auto left = quotas_->remain(admin_, {""}).value();
  EXPECT_EQ(left.cpu, 1) << "4 - 2 x 1.5";
  EXPECT_EQ(left.memory_gb, 58) << "no quota: the machine's 64 less everybody's 2 x 3";
  EXPECT_EQ(left.gpu, 1);
  EXPECT_EQ(left.jobs, 8);
  EXPECT_EQ(left.vgpu, 0);
}

TEST_F(QuotasTest, WhatIsLeftIsNeverLessThanNothing) {
  FixedUsage usage;
  quotas_->add_source(static_cast<UsageSource&>(usage));
  quotas_->add_source(static_cast<StorageSource&>(usage));
  ASSERT_TRUE(
      quotas_->put_quota(call(), "1", {.cpu = 1, .jobs = 0, .storage_bytes = 1, .storage_inodes = 25}).ok());
  const auto left = quotas_->remain(admin_, {"1"}).value();
  EXPECT_EQ(left.cpu, 0);
  EXPECT_EQ(left.jobs, 0);
  const auto storage = quotas_->storage_remain(admin_, {"1", 0}).value();
  EXPECT_EQ(storage.block_remain, "0B");
  EXPECT_EQ(storage.block_used, "1MB");
  EXPECT_EQ(storage.inode_remain, "15个");
}

TEST_F(QuotasTest, TheQuotaInMemoryFollowsItsChanges) {
  EXPECT_EQ(quotas_->quota_of("7")->storage_bytes, std::nullopt);
  ASSERT_TRUE(quotas_->put_quota(call(), "7", {.storage_bytes = 5}).ok());
  EXPECT_EQ(quotas_->quota_of("7")->storage_bytes, 5);
  ASSERT_TRUE(quotas_->delete_quota(call(), "7").ok());
  EXPECT_EQ(quotas_->quota_of("7")->storage_bytes, std::nullopt);
}

TEST_F(QuotasTest, AGroupIsFoundByAnyOfItsNamesAndTheyMustAgree) {
  const auto a = quotas_->create_group(call(), {"a", "process", {}, {}}).value();
  const auto b = quotas_->create_group(call(), {"b", "slurm", {.cpu = 100}, {}}).value();
  EXPECT_EQ(quotas_->resolve_group("7", {})->name, "default");
  EXPECT_EQ(quotas_->resolve_group("7", {.id = a.id})->id, a.id);
  EXPECT_EQ(quotas_->resolve_group("7", {.key = a.key})->id, a.id);
  EXPECT_EQ(quotas_->resolve_group("7", {.name = "a"})->id, a.id);
  EXPECT_EQ(quotas_->resolve_group("7", {.id = a.id, .key = a.key, .name = "a"})->id, a.id);

  struct Case {
    GroupRef ref;
    const char* field;
  };
  for (const Case& c : {Case{{.id = "nope"}, "zoneId"}, Case{{.key = "nope"}, "resourceGroupKey"},
                        Case{{.name = "nope"}, "zoneName"}, Case{{.id = a.id, .name = "b"}, "zoneName"},
                        Case{{.id = a.id, .key = b.key, .key_field = "k"}, "k"}}) {
    const auto found = quotas_->resolve_group("7", c.ref);
    ASSERT_FALSE(found.ok()) << c.field;
    EXPECT_EQ(found.error().code, Code::invalid_argument);
    EXPECT_EQ(found.error().violations.at(0).field, c.field);
  }
}

TEST_F(QuotasTest, AGroupOnThisMachineHasAtMostWhatItDoesNotLimit) {
  const auto here = quotas_->create_group(call(), {"here", "docker", {.cpu = 3}, {}}).value();
  EXPECT_EQ(here.cpu, 3);
  EXPECT_EQ(here.memory_gb, 64);
  EXPECT_EQ(here.gpu, 2);
  const auto cluster = quotas_->create_group(call(), {"cluster", "slurm", {.cpu = 100}, {}}).value();
  EXPECT_EQ(cluster.memory_gb, std::nullopt);
}

TEST_F(QuotasTest, AGroupIsForItsUsersAndAdministrators) {
  const auto group = quotas_->create_group(call(), {"closed", "process", {}, {"1"}}).value();
  const auto refused = quotas_->resolve_group("7", {.name = "closed", .name_field = "resourceGroupName"});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::permission_denied);
  EXPECT_EQ(refused.error().violations.at(0).field, "resourceGroupName");
  EXPECT_TRUE(quotas_->resolve_group("1", {.name = "closed"}).ok());
  EXPECT_EQ(quotas_->show_group(li_, group.id).error().code, Code::not_found);
  ASSERT_TRUE(quotas_->patch_group(call(), {group.id, {}, {}, std::vector<std::string>{"7"}}).ok());
  EXPECT_TRUE(quotas_->resolve_group("7", {.name = "closed"}).ok());
}

TEST_F(QuotasTest, AGroupInUseStays) {
  const auto group = quotas_->create_group(call(), {"busy", "process", {}, {}}).value();
  quotas_->guard_deletion([](db::Transaction&, std::string_view) -> Result<void> {
    return Error{Code::failed_precondition, {"有作业", "has jobs"}};
  });
  EXPECT_EQ(quotas_->delete_group(call(), group.id).error().message.en, "has jobs");
  EXPECT_TRUE(quotas_->group(group.id).ok());
}

TEST_F(QuotasTest, TheDefaultGroupIsMadeOnceWithAKeyOfItsOwn) {
  ASSERT_TRUE(quotas_->make_default_group().ok());
  const auto groups = quotas_->groups().value();
  ASSERT_EQ(groups.size(), 1);
  EXPECT_THAT(groups[0].key, testing::MatchesRegex("resourceGroup[A-Za-z0-9]+"));
  EXPECT_EQ(groups[0].key.size(), 29);
}

}  // namespace
}  // namespace lathe::quotas
