#include "accounts/audit_retention.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>

#include "accounts/accounts_store.h"
#include "accounts/audit.h"
#include "db/query_plan.h"
#include "db/test_database.h"

namespace lathe::accounts {
namespace {

constexpr std::chrono::hours kDay{24};

/// Counts the transactions that write.
class CountingDatabase final : public db::Database {
 public:
  std::int64_t writes = 0;

 protected:
  Result<void> run_write(const Body& body) override {
    ++writes;
    return database_->write(body);
  }
  Result<void> run_read(const Body& body) override { return database_->read(body); }

 private:
  std::unique_ptr<db::Database> database_ = db::open_test_database();
};

class AuditRetentionTest : public ::testing::Test {
 protected:
  void record(int entries) {
    ASSERT_TRUE(db_.write([&](db::Transaction& tx) -> Result<void> {
                     for (int i = 0; i < entries; ++i)
                       audit_.record(tx, http::Identity{}, "", "thing.create", "thing", std::to_string(i));
                     return {};
                   })
                    .ok());
  }
  std::int64_t entries() {
    return db_
        .read([](db::Transaction& tx) -> Result<std::int64_t> {
          return tx.query("SELECT count(*) FROM audit").integer(0, 0);
        })
        .value();
  }

  ManualClock clock_{Time{std::chrono::milliseconds(1'700'000'000'000)}};
  Uuid7Source ids_{clock_};
  Audit audit_{ids_, clock_};
  CountingDatabase db_;
};

TEST_F(AuditRetentionTest, DropsWhatIsTooOldInSmallTransactions) {
  record(2500);
  clock_.advance(kDay * 300);
  record(10);
  AuditRetention retention(db_, clock_, kDay * 365);
  EXPECT_EQ(retention.drop_old().value(), 0);
  EXPECT_EQ(entries(), 2510);

  clock_.advance(kDay * 66);
  db_.writes = 0;
  EXPECT_EQ(retention.drop_old().value(), 2500);
  EXPECT_EQ(db_.writes, 3) << "a thousand at a time";
  EXPECT_EQ(entries(), 10);

  clock_.advance(kDay * 300);
  EXPECT_EQ(retention.drop_old().value(), 10);
}

TEST_F(AuditRetentionTest, BeginsByItself) {
  record(1500);
  clock_.advance(kDay * 2);
  {
    AuditRetention retention(db_, clock_, kDay);
    retention.start();
    for (int i = 0; i < 1000 && entries() > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(entries(), 0);
}

TEST_F(AuditRetentionTest, ReadsNoMoreThanItDrops) {
  const std::string plan = db_.read([&](db::Transaction& tx) -> Result<std::string> {
                                return db::explain(tx, store::kDropAudit, {clock_.now(), 1000});
                              })
                               .value();
  EXPECT_TRUE(db::uses_indexes_only(plan)) << plan;
}

}  // namespace
}  // namespace lathe::accounts
