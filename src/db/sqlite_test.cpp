#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <csignal>
#include <fstream>
#include <future>
#include <latch>
#include <thread>

#include "db/database.h"
#include "db/query_plan.h"
#include "db/test_database.h"

namespace lathe::db {
namespace {

constexpr Migration kNotes[] = {{1, "0001_notes",
                                 "CREATE TABLE notes (id BIGINT PRIMARY KEY, word TEXT UNIQUE, size BIGINT);"
                                 "CREATE TABLE replies (id BIGINT PRIMARY KEY,"
                                 " note_id BIGINT NOT NULL REFERENCES notes (id));"
                                 "CREATE TABLE late_replies (id BIGINT PRIMARY KEY,"
                                 " note_id BIGINT REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);"}};

class SqliteTest : public testing::Test {
 protected:
  SqliteTest() : db_(open()) {}
  std::unique_ptr<Database> open() {
    auto opened = open_sqlite({.path = path_, .readers = 2, .migrations = kNotes});
    EXPECT_TRUE(opened.ok()) << opened.error().message.en;
    return std::move(opened).value();
  }
  Result<std::int64_t> execute(std::string_view sql, const std::vector<Value>& args = {}) {
    return db_->write([&](Transaction& tx) -> Result<std::int64_t> { return tx.execute(sql, args); });
  }
  Result<std::int64_t> add(std::int64_t id, const Value& word = {}) {
    return execute("INSERT INTO notes (id, word) VALUES ($1, $2)", {id, word});
  }
  std::int64_t count() {
    auto counted = db_->read([](Transaction& tx) -> Result<std::int64_t> {
      return tx.query("SELECT count(*) FROM notes").integer(0, 0);
    });
    EXPECT_TRUE(counted.ok());
    return *counted;
  }

  const TestFolder folder_{memory_folder()};
  const std::string path_ = folder_.file("notes.db");
  std::unique_ptr<Database> db_;
};

Code code_of(const auto& result) {
  EXPECT_FALSE(result.ok());
  return result.ok() ? Code::internal : result.error().code;
}

/// Commits that stand in a write-ahead log: the last frame of each carries the size of the database.
int commits_in_log(const std::string& path) {
  std::ifstream log(path + "-wal", std::ios::binary);
  const auto number_at = [&](std::streamoff at) -> std::int64_t {
    unsigned char bytes[4] = {};
    log.seekg(at).read(reinterpret_cast<char*>(bytes), 4);
    if (!log) return -1;
    return bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
  };
  const std::int64_t page_size = number_at(8);
  int commits = 0;
  for (std::streamoff frame = 32; page_size > 0; frame += 24 + page_size) {
    const std::int64_t size_after = number_at(frame + 4);
    if (size_after < 0) break;
    if (size_after > 0) ++commits;
  }
  return commits;
}

TEST_F(SqliteTest, WhatIsWrittenIsThereAfterReopening) {
  ASSERT_TRUE(add(1, "one").ok());
  db_.reset();
  db_ = open();
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, IsSetUpForDurabilityAndForOneOwner) {
  const auto settings = db_->write([](Transaction& tx) -> Result<std::string> {
    std::string out;
    for (const char* pragma : {"journal_mode", "synchronous", "foreign_keys"})
      out += tx.query(std::string("PRAGMA ") + pragma).text(0, 0) + " ";
    return out;
  });
  EXPECT_EQ(*settings, "wal 2 1 ");  // 2: FULL
  ASSERT_TRUE(add(1).ok());
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat info {};
    ASSERT_EQ(::stat((path_ + suffix).c_str(), &info), 0) << suffix;
    EXPECT_EQ(info.st_mode & 0777, 0600U) << suffix;
  }
}

TEST_F(SqliteTest, SixtyFourWritersAreEachAnswered) {
  constexpr int kThreads = 64, kEach = 20;
  std::latch start(kThreads);
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      start.arrive_and_wait();
      for (int i = 0; i < kEach; ++i) {
        // Every fourth is refused, and must take nobody along.
        const bool refused = i % 4 == 3;
        const auto result = db_->write([&](Transaction& tx) -> Result<int> {
          tx.execute("INSERT INTO notes (id) VALUES ($1)", {t * kEach + i});
          if (refused) return Error{Code::cancelled, {"否", "no"}};
          return t;
        });
        if (refused ? !result.ok() && result.error().code == Code::cancelled : result.ok() && *result == t)
          ++answered;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(answered, kThreads * kEach);
  EXPECT_EQ(count(), kThreads * kEach * 3 / 4);
}

TEST_F(SqliteTest, WritesThatWaitShareACommit) {
  constexpr int kThreads = 64;
  const int before = commits_in_log(path_);
  std::latch held(1), waiting(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      held.wait();
      waiting.count_down();
      EXPECT_TRUE(add(t).ok());
    });
  EXPECT_TRUE(db_->write([&](Transaction& tx) -> Result<void> {
                   tx.execute("INSERT INTO notes (id) VALUES (1000)");
                   held.count_down();
                   waiting.wait();
                   return {};
                 })
                  .ok());
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(count(), kThreads + 1);
  const int commits = commits_in_log(path_) - before;
  EXPECT_GE(commits, 1);
  EXPECT_LE(commits, kThreads / 2);  // two or three, unless a thread was stopped just before it wrote
}

TEST_F(SqliteTest, AnExceptionUndoesItsOwnWorkAlone) {
  // Held up by the first write, the others share a commit.
  std::latch held(1), waiting(5);
  std::vector<std::thread> threads;
  const auto start = [&](Result<void> (*work)(Transaction&), std::optional<Code> expected) {
    threads.emplace_back([&, work, expected] {
      held.wait();
      waiting.count_down();
      const auto result = db_->write(work);
      EXPECT_EQ(result.ok() ? std::nullopt : std::optional(result.error().code), expected);
    });
  };
  start(
      [](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO notes (id) VALUES (1)");
        throw std::runtime_error("a bug");
      },
      Code::internal);
  start(
      [](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO notes (id) VALUES (2)");
        throw 7;
      },
      Code::internal);
  start(
      [](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO notes (id) VALUES (3)");
        tx.execute("INSERT INTO notes (id) VALUES (3)");
        return {};
      },
      Code::already_exists);
  start(
      [](Transaction& tx) -> Result<void> {  // would make the whole commit fail
        tx.execute("INSERT INTO notes (id) VALUES (5)");
        tx.execute("INSERT INTO late_replies (id, note_id) VALUES (1, 7)");
        return {};
      },
      Code::failed_precondition);
  start(
      [](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO notes (id) VALUES (4)");
        return {};
      },
      std::nullopt);
  EXPECT_TRUE(db_->write([&](Transaction&) -> Result<void> {
                   held.count_down();
                   waiting.wait();
                   return {};
                 })
                  .ok());
  for (auto& thread : threads) thread.join();
  const auto left = db_->read([](Transaction& tx) -> Result<std::string> {
    const Rows rows = tx.query("SELECT group_concat(id) FROM notes");
    return rows.text(0, 0);
  });
  EXPECT_EQ(*left, "4");
}

TEST_F(SqliteTest, WhoLosesTheirWorkWithTheWholeTransactionIsTold) {
  constexpr int kThreads = 16;
  std::latch held(1), waiting(kThreads);
  std::array<bool, kThreads> acknowledged{};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      held.wait();
      waiting.count_down();
      const auto result = db_->write([&](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO notes (id) VALUES ($1)", {t});
        if (t == 7) tx.execute("ROLLBACK");  // as SQLite itself does after some errors
        return {};
      });
      acknowledged[static_cast<std::size_t>(t)] = result.ok();
    });
  const auto first = db_->write([&](Transaction&) -> Result<void> {
    held.count_down();
    waiting.wait();
    return {};
  });
  EXPECT_TRUE(first.ok());
  for (auto& thread : threads) thread.join();
  const auto present = db_->read([](Transaction& tx) -> Result<std::array<bool, kThreads>> {
    std::array<bool, kThreads> out{};
    const Rows rows = tx.query("SELECT id FROM notes");
    for (std::size_t i = 0; i < rows.size(); ++i) out.at(static_cast<std::size_t>(rows.integer(i, 0))) = true;
    return out;
  });
  EXPECT_EQ(*present, acknowledged);
  EXPECT_FALSE(acknowledged[7]);
  EXPECT_TRUE(add(100).ok());
}

TEST_F(SqliteTest, ConstraintsHaveTheirCodes) {
  ASSERT_TRUE(add(1, "one").ok());
  EXPECT_EQ(code_of(add(1, "two")), Code::already_exists);
  EXPECT_EQ(code_of(add(2, "one")), Code::already_exists);
  EXPECT_EQ(code_of(execute("INSERT INTO replies (id, note_id) VALUES (1, 7)")), Code::failed_precondition);
  EXPECT_TRUE(execute("INSERT INTO replies (id, note_id) VALUES (1, 1)").ok());
  EXPECT_EQ(code_of(execute("DELETE FROM notes")), Code::failed_precondition);
  // This one is only found at the commit, which others share.
  EXPECT_EQ(code_of(execute("INSERT INTO late_replies (id, note_id) VALUES (1, 7)")),
            Code::failed_precondition);
  EXPECT_EQ(code_of(execute("INSERT INTO replies (id, note_id) VALUES (9, NULL)")), Code::internal);
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, AFailureThatIsCaughtByNobodyElseStillRollsBack) {
  const auto result = db_->write([](Transaction& tx) -> Result<void> {
    tx.execute("INSERT INTO notes (id) VALUES (1)");
    tx.execute("INSERT INTO notes (id) VALUES (1)");
    return {};
  });
  EXPECT_EQ(code_of(result), Code::already_exists);
  EXPECT_EQ(count(), 0);
}

TEST_F(SqliteTest, AFullDatabaseIsSaidAndNothingIsApplied) {
  ASSERT_TRUE(add(1).ok());
  ASSERT_TRUE(db_->write([](Transaction& tx) -> Result<void> {
                   const auto pages = tx.query("PRAGMA page_count").integer(0, 0);
                   tx.query("PRAGMA max_page_count = " + std::to_string(pages + 2));
                   return {};
                 })
                  .ok());
  EXPECT_EQ(code_of(add(2, std::string(100'000, 'x'))), Code::storage_exhausted);
  EXPECT_EQ(count(), 1);
  ASSERT_TRUE(db_->write([](Transaction& tx) -> Result<void> {
                   tx.query("PRAGMA max_page_count = 1000000");
                   return {};
                 })
                  .ok());
  EXPECT_TRUE(add(2, std::string(100'000, 'x')).ok());
}

TEST_F(SqliteTest, ACommitThatFailsAppliesNothingAndTheNextOneWorks) {
  ASSERT_TRUE(add(1).ok());
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 20, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  // Stays in memory until the commit.
  const auto refused = add(2, std::string(2 << 20, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(code_of(refused), Code::unavailable);
  EXPECT_EQ(count(), 1);
  EXPECT_TRUE(add(2, std::string(2 << 20, 'x')).ok());
  db_.reset();
  db_ = open();
  EXPECT_EQ(count(), 2);
}

TEST_F(SqliteTest, AReaderKeepsItsSnapshot) {
  ASSERT_TRUE(add(1).ok());
  const auto seen = db_->read([&](Transaction& tx) -> Result<std::vector<std::int64_t>> {
    std::vector<std::int64_t> counts;
    counts.push_back(tx.query("SELECT count(*) FROM notes").integer(0, 0));
    std::thread([&] { EXPECT_TRUE(add(2).ok()); }).join();
    counts.push_back(tx.query("SELECT count(*) FROM notes").integer(0, 0));
    return counts;
  });
  EXPECT_EQ(*seen, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(count(), 2);
}

TEST_F(SqliteTest, ReadersDoNotWaitForAWriterNorSeeItsWork) {
  std::latch written(1), release(1);
  std::thread writer([&] {
    EXPECT_TRUE(db_->write([&](Transaction& tx) -> Result<void> {
                     tx.execute("INSERT INTO notes (id) VALUES (1)");
                     written.count_down();
                     release.wait();
                     return {};
                   })
                    .ok());
  });
  written.wait();
  EXPECT_EQ(count(), 0);
  release.count_down();
  writer.join();
  EXPECT_EQ(count(), 1);
}

TEST_F(SqliteTest, MoreReadersThanConnectionsTakeTurns) {
  ASSERT_TRUE(add(1).ok());
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) good += count() == 1;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 16 * 20);
}

TEST_F(SqliteTest, AReaderCannotWrite) {
  const auto result = db_->read([](Transaction& tx) -> Result<void> {
    tx.execute("INSERT INTO notes (id) VALUES (1)");
    return {};
  });
  EXPECT_EQ(code_of(result), Code::internal);
  EXPECT_EQ(count(), 0);
}

TEST_F(SqliteTest, ATransactionInsideATransactionIsRefusedInsteadOfWaitingForItself) {
  EXPECT_EQ(code_of(db_->write([&](Transaction&) -> Result<std::int64_t> { return add(1); })),
            Code::internal);
  EXPECT_EQ(code_of(db_->read([&](Transaction&) -> Result<std::int64_t> { return count(); })),
            Code::internal);
  EXPECT_EQ(count(), 0);
}

TEST_F(SqliteTest, ArgumentsAreBoundByNumber) {
  const auto got = db_->read([](Transaction& tx) -> Result<std::string> {
    const Rows rows = tx.query("SELECT $2 || $1 || $2 || $10, $3, $4, $5, $6, $7, $8, $9",
                               {"a", std::string_view("b"), 3, 4.5, true, std::nullopt,
                                std::optional<std::string>("x"), Time{Duration{8}}, 9U, std::string("j")});
    EXPECT_EQ(rows.integer(0, 1), 3);
    EXPECT_EQ(rows.number(0, 2), 4.5);
    EXPECT_EQ(rows.integer(0, 3), 1);
    EXPECT_TRUE(rows.is_null(0, 4));
    EXPECT_EQ(rows.text(0, 5), "x");
    EXPECT_EQ(rows.integer(0, 6), 8);
    EXPECT_EQ(rows.integer(0, 7), 9);
    return rows.text(0, 0);
  });
  EXPECT_EQ(*got, "babj");
}

TEST_F(SqliteTest, ArgumentsAreNeverPartOfTheText) {
  const std::string hostile = "'; DROP TABLE notes; --";
  ASSERT_TRUE(add(1, hostile).ok());
  const auto found = db_->read([&](Transaction& tx) -> Result<std::string> {
    return tx.query("SELECT word FROM notes WHERE word = $1", {hostile}).text(0, 0);
  });
  EXPECT_EQ(*found, hostile);
}

TEST_F(SqliteTest, WrongStatementsAreBugs) {
  EXPECT_EQ(code_of(execute("INSERT INTO notes (id) VALUES ($1)")), Code::internal);
  EXPECT_EQ(code_of(execute("INSERT INTO notes (id) VALUES (1)", {1})), Code::internal);
  EXPECT_EQ(code_of(execute("INSERT INTO notes (id) VALUES (?)", {1})), Code::internal);
  EXPECT_EQ(code_of(execute("INSERT INTO notes (id) VALUES (1); DELETE FROM notes")), Code::internal);
  EXPECT_EQ(code_of(execute("INSERT INTO nodes (id) VALUES (1)")), Code::internal);
  EXPECT_EQ(code_of(execute("DELETE FROM notes WHERE \"wrod\" = 'a'")), Code::internal);
  EXPECT_EQ(code_of(execute("")), Code::internal);
  EXPECT_EQ(count(), 0);
}

TEST_F(SqliteTest, ExecuteCountsTheRowsItChanged) {
  EXPECT_EQ(*execute("INSERT INTO notes (id) VALUES (1), (2), (3)"), 3);
  EXPECT_EQ(*execute("UPDATE notes SET word = NULL WHERE id > 1"), 2);
  EXPECT_EQ(*execute("UPDATE notes SET word = NULL WHERE id > 7"), 0);
  EXPECT_EQ(*execute("SELECT * FROM notes"), 0);
  EXPECT_EQ(*execute("CREATE TABLE more (id BIGINT)"), 0);
}

TEST_F(SqliteTest, ReturningGivesRows) {
  const auto next = db_->write([](Transaction& tx) -> Result<std::int64_t> {
    tx.execute("INSERT INTO notes (id, size) VALUES (1, 41)");
    return tx.query("UPDATE notes SET size = size + 1 WHERE id = $1 RETURNING size", {1}).integer(0, 0);
  });
  EXPECT_EQ(*next, 42);
}

TEST_F(SqliteTest, StatementsMadeAtRunTimeDoNotPileUp) {
  const auto total = db_->write([](Transaction& tx) -> Result<std::int64_t> {
    std::int64_t sum = 0;
    for (int i = 0; i < 1000; ++i) sum += tx.query("SELECT " + std::to_string(i)).integer(0, 0);
    return sum;
  });
  EXPECT_EQ(*total, 499'500);
}

TEST_F(SqliteTest, PlansTellWhetherAnIndexIsUsed) {
  const auto plan = [&](std::string_view sql, std::vector<Value> args) {
    return *db_->read([&](Transaction& tx) -> Result<std::string> { return explain(tx, sql, args); });
  };
  EXPECT_TRUE(uses_indexes_only(plan("SELECT * FROM notes WHERE id < $1 ORDER BY id DESC LIMIT 9", {1})));
  EXPECT_TRUE(uses_indexes_only(plan("SELECT * FROM notes WHERE word = $1", {"a"})));
  EXPECT_TRUE(uses_indexes_only(plan("SELECT word FROM notes ORDER BY word", {})));
  EXPECT_FALSE(uses_indexes_only(plan("SELECT * FROM notes WHERE size = $1", {1})));
  EXPECT_FALSE(uses_indexes_only(plan("SELECT * FROM notes WHERE id < $1 ORDER BY size", {1})));
}

TEST_F(SqliteTest, AFolderThatIsMissingIsNamed) {
  const auto opened = open_sqlite({.path = folder_.file("absent/x.db")});
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.error().message.en.find("absent/x.db"), std::string::npos) << opened.error().message.en;
}

TEST_F(SqliteTest, AFileThatIsNoDatabaseIsRefusedAndLeftAsItWas) {
  const std::string path = folder_.file("letter.txt");
  const std::string text(5000, 'x');
  std::ofstream(path) << text;
  EXPECT_FALSE(open_sqlite({.path = path}).ok());
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
}

}  // namespace
}  // namespace lathe::db
