#include <gtest/gtest.h>

#include "db/database.h"
#include "db/test_database.h"

namespace lathe::db {
namespace {

class SchemaTest : public testing::Test {
 protected:
  Result<std::unique_ptr<Database>> open(std::vector<Migration> migrations) {
    return open_sqlite({.path = folder_.file("schema.db"), .migrations = migrations});
  }
  /// The message of the refusal; "" if it opened.
  std::string refusal(std::vector<Migration> migrations) {
    const auto opened = open(std::move(migrations));
    if (opened.ok()) return "";
    EXPECT_EQ(opened.error().code, Code::failed_precondition);
    return opened.error().message.en;
  }
  static std::string names(Database& database, const std::string& sql) {
    return *database.read([&](Transaction& tx) -> Result<std::string> {
      const Rows rows = tx.query(sql);
      std::string out;
      for (std::size_t i = 0; i < rows.size(); ++i) out += rows.text(i, 0) + " ";
      return out;
    });
  }

  const TestFolder folder_{memory_folder()};
  static constexpr Migration kA{1, "0001_a", "CREATE TABLE a (id BIGINT PRIMARY KEY)"};
  static constexpr Migration kB{2, "0002_b", "CREATE TABLE b (id BIGINT PRIMARY KEY)"};
};

constexpr const char* kRecorded = "SELECT name FROM schema_migrations ORDER BY version";

TEST_F(SchemaTest, EachMigrationIsAppliedOnce) {
  for (int i = 0; i < 2; ++i) {
    const auto opened = open({kA, kB});
    ASSERT_TRUE(opened.ok()) << opened.error().message.en;
    EXPECT_EQ(names(**opened, kRecorded), "0001_a 0002_b ");
  }
}

TEST_F(SchemaTest, LaterOnesAreAddedWhateverTheirNumber) {
  ASSERT_TRUE(open({kB}).ok());
  const auto opened = open({kA, kB});
  ASSERT_TRUE(opened.ok()) << opened.error().message.en;
  EXPECT_EQ(names(**opened, kRecorded), "0001_a 0002_b ");
}

TEST_F(SchemaTest, AChangedMigrationIsRefused) {
  ASSERT_TRUE(open({kA}).ok());
  Migration changed = kA;
  changed.sql = "CREATE TABLE a (id BIGINT PRIMARY KEY, more TEXT)";
  EXPECT_NE(refusal({changed}).find("0001_a was changed"), std::string::npos);
  EXPECT_EQ(refusal({kA}), "");
}

TEST_F(SchemaTest, ANewerDatabaseIsRefused) {
  ASSERT_TRUE(open({kA, kB}).ok());
  EXPECT_NE(refusal({kA}).find("newer version"), std::string::npos);
  EXPECT_EQ(refusal({kA, kB}), "");
}

TEST_F(SchemaTest, AMigrationThatFailsLeavesNothing) {
  const Migration broken{2, "0002_broken", "CREATE TABLE half (id BIGINT); INSERT INTO nowhere VALUES (1);"};
  const auto refused = open({kA, broken});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.en.find("0002_broken"), std::string::npos);
  const auto opened = open({kA});
  ASSERT_TRUE(opened.ok()) << opened.error().message.en;
  EXPECT_EQ(names(**opened, "SELECT name FROM sqlite_schema WHERE name = 'half'"), "");
}

TEST_F(SchemaTest, StatementsAreSplitWhereSqliteWould) {
  const Migration tricky{1, "0001_tricky", R"(
    -- a comment; with a semicolon
    CREATE TABLE words (word TEXT DEFAULT 'a;b');
    /* another; one */
    CREATE TABLE log (word TEXT);
    CREATE TRIGGER copy AFTER INSERT ON words BEGIN
      INSERT INTO log (word) VALUES (new.word);
      INSERT INTO log (word) VALUES ('second; half');
    END;
    INSERT INTO words (word) VALUES ('x;y'), ('z');
    -- the end
  )"};
  const auto opened = open({tricky});
  ASSERT_TRUE(opened.ok()) << opened.error().message.en;
  EXPECT_EQ(names(**opened, "SELECT word FROM log"), "x;y second; half z second; half ");
}

TEST_F(SchemaTest, TheEmbeddedOnesAreInOrderAndMakeASoundSchema) {
  int before = 0;
  for (const Migration& migration : embedded_migrations()) {
    EXPECT_LT(before, migration.version) << migration.name;
    before = migration.version;
  }
  const auto database = open_test_database();
  EXPECT_EQ(names(*database, "SELECT name FROM sqlite_schema WHERE name = 'meta'"), "meta ");
  EXPECT_EQ(names(*database, "PRAGMA foreign_key_check"), "");
  EXPECT_EQ(names(*database, "PRAGMA integrity_check"), "ok ");
}

}  // namespace
}  // namespace lathe::db
