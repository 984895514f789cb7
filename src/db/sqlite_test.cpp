#include <gtest/gtest.h>

#include <thread>

#include "db/database.h"
#include "db/test_database.h"

namespace lathe::db {
namespace {

constexpr Migration kNotes[] = {{1, "0001_notes",
                                 "CREATE TABLE notes (id BIGINT PRIMARY KEY, word TEXT UNIQUE);"
                                 "CREATE TABLE replies (id BIGINT PRIMARY KEY,"
                                 " note_id BIGINT NOT NULL REFERENCES notes (id));"}};

/// A database with the two tables above.
class SqliteTest : public testing::Test {
 protected:
  SqliteTest() : db_(open()) {}
  std::unique_ptr<Database> open() {
    auto opened = open_sqlite({.path = folder_.file("notes.db"), .migrations = kNotes});
    EXPECT_TRUE(opened.ok()) << opened.error().message.en;
    return std::move(opened).value();
  }
  Result<void> add(std::int64_t id, const Value& word = {}) {
    return db_->write([&](Transaction& tx) -> Result<void> {
      tx.execute("INSERT INTO notes (id, word) VALUES ($1, $2)", {id, word});
      return {};
    });
  }
  std::int64_t count() {
    auto counted = db_->read([](Transaction& tx) -> Result<std::int64_t> {
      return tx.query("SELECT count(*) FROM notes").integer(0, 0);
    });
    EXPECT_TRUE(counted.ok());
    return *counted;
  }

  TestFolder folder_;
  std::unique_ptr<Database> db_;
};

TEST_F(SqliteTest, WhatIsWrittenIsThereAfterReopening) {
  ASSERT_TRUE(add(1, "one").ok());
  db_.reset();
  db_ = open();
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, EveryoneOfSixtyFourWritersIsAnswered) {
  constexpr int kThreads = 64, kEach = 20;
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        // Every fourth is refused, and must take nobody along.
        const auto result = db_->write([&](Transaction& tx) -> Result<int> {
          tx.execute("INSERT INTO notes (id) VALUES ($1)", {t * kEach + i});
          if (i % 4 == 3) return Error{Code::cancelled, {"", "no"}};
          return t;
        });
        if (i % 4 == 3 ? (!result.ok() && result.error().code == Code::cancelled)
                       : (result.ok() && *result == t))
          ++answered;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(answered, kThreads * kEach);
  EXPECT_EQ(count(), kThreads * kEach * 3 / 4);
}

TEST_F(SqliteTest, ConstraintsHaveTheirCodes) {
  ASSERT_TRUE(add(1, "one").ok());
  EXPECT_EQ(add(1, "two").error().code, Code::already_exists);
  EXPECT_EQ(add(2, "one").error().code, Code::already_exists);
  const auto orphan = db_->write([](Transaction& tx) -> Result<void> {
    tx.execute("INSERT INTO replies (id, note_id) VALUES (1, 7)");
    return {};
  });
  EXPECT_EQ(orphan.error().code, Code::failed_precondition);
}

}  // namespace
}  // namespace lathe::db
