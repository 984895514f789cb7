#include "db/row.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/json.h"
#include "db/test_database.h"

namespace lathe::db {
namespace {

struct Mount {
  std::string source;
  std::optional<std::string> note;
  bool writable = false;
  Time since{};
  std::vector<double> weights;
};
void fields(Fields& f, Mount& m) {
  f.field("source", m.source, {.required = true, .max_length = 3});
  f.field("note", m.note);
  f.field("writable", m.writable);
  f.field("since", m.since);
  f.field("weights", m.weights);
}

struct Sample {
  std::string id;
  bool urgent = false;
  std::int64_t size = 0;
  double ratio = 0;
  Time created_at{};
  std::optional<Time> ended_at;
  std::optional<std::string> reason;
  Mount mount;
  std::optional<Mount> spare;
  std::vector<Mount> mounts;
  std::vector<std::string> envs;
  Json extra;
  std::string order = "unset";
};
void fields(Fields& f, Sample& s) {
  f.field("id", s.id);
  f.field("urgent", s.urgent);
  f.field("size", s.size);
  f.field("ratio", s.ratio);
  f.field("created_at", s.created_at);
  f.field("ended_at", s.ended_at);
  f.field("reason", s.reason);
  f.field("mount", s.mount);
  f.field("spare", s.spare);
  f.field("mounts", s.mounts);
  f.embedded("envs", s.envs);
  f.field("extra", s.extra);
  f.field("order", s.order);
}

class RowTest : public testing::Test {
 protected:
  /// Runs in a transaction that writes, and fails the test if that fails.
  template <class Work>
  void in_transaction(Work work) {
    const auto result = database_->write([&](Transaction& tx) -> Result<void> {
      tx.execute(
          "CREATE TABLE IF NOT EXISTS samples (id TEXT PRIMARY KEY, urgent BIGINT, size BIGINT,"
          " ratio DOUBLE PRECISION, created_at BIGINT, ended_at BIGINT, reason TEXT, mount TEXT, spare TEXT,"
          " mounts TEXT, envs TEXT, extra TEXT, \"order\" TEXT)");
      work(tx);
      return {};
    });
    EXPECT_TRUE(result.ok()) << result.error().message.en;
  }

  std::unique_ptr<Database> database_ = open_test_database();
};

Sample full_sample() {
  const Mount mount{.source = "longer than the rule allows",
                    .note = "",
                    .writable = true,
                    .since = Time{Duration{1234567890123}},
                    .weights = {0.5, 3, -1e300}};
  return {.id = "s1",
          .urgent = true,
          .size = std::numeric_limits<std::int64_t>::min(),
          .ratio = 0.1,
          .created_at = Time{Duration{1700000000001}},
          .ended_at = Time{Duration{0}},
          .reason = "",
          .mount = mount,
          .spare = mount,
          .mounts = {mount, {}},
          .envs = {"A=1", "引号\"; DROP TABLE samples", std::string("nul\0in", 6)},
          .extra = {{"deep", {1, "two", nullptr}}},
          .order = "first"};
}

TEST_F(RowTest, WhatWasInsertedIsReadExactly) {
  const Sample in = full_sample();
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", in);
    const auto out = select_one<Sample>(tx, "SELECT * FROM samples WHERE id = $1", {"s1"});
    ASSERT_TRUE(out);
    EXPECT_TRUE(out->urgent);
    EXPECT_EQ(out->size, in.size);
    EXPECT_EQ(out->ratio, in.ratio);
    EXPECT_EQ(out->created_at, in.created_at);
    EXPECT_EQ(out->ended_at, in.ended_at);
    EXPECT_EQ(out->reason, in.reason);  // "" is not NULL
    ASSERT_TRUE(out->spare);
    for (const Mount& mount : {out->mount, *out->spare, out->mounts.at(0)}) {
      EXPECT_EQ(mount.source, in.mount.source);
      EXPECT_EQ(mount.note, in.mount.note);
      EXPECT_TRUE(mount.writable);
      EXPECT_EQ(mount.since, in.mount.since);
      EXPECT_EQ(mount.weights, in.mount.weights);
    }
    EXPECT_EQ(out->mounts.size(), 2U);
    EXPECT_FALSE(out->mounts.at(1).note);
    EXPECT_EQ(out->envs, in.envs);
    EXPECT_EQ(out->extra, in.extra);
    EXPECT_EQ(out->order, "first");
  });
}

TEST_F(RowTest, NothingIsNullAndNullIsNothing) {
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", Sample{.id = "empty"});
    const Rows rows = tx.query("SELECT ended_at, reason, spare, mounts, urgent FROM samples");
    EXPECT_TRUE(rows.is_null(0, 0) && rows.is_null(0, 1) && rows.is_null(0, 2));
    EXPECT_EQ(rows.text(0, 3), "[]");
    EXPECT_EQ(rows.integer(0, 4), 0);

    // A column that was added later is NULL in the old rows: the member stays as it was made.
    tx.execute("UPDATE samples SET mounts = NULL, envs = NULL, mount = NULL, size = NULL, \"order\" = NULL");
    const auto out = select_one<Sample>(tx, "SELECT * FROM samples");
    ASSERT_TRUE(out);
    EXPECT_FALSE(out->ended_at || out->reason || out->spare);
    EXPECT_TRUE(out->mounts.empty() && out->envs.empty());
    EXPECT_EQ(out->order, "unset");
  });
}

TEST_F(RowTest, NestedMembersAddedLaterKeepTheirDefault) {
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", full_sample());
    tx.execute("UPDATE samples SET mount = $1", {R"({"source":"x","writable":null,"gone":1})"});
    const auto out = select_one<Sample>(tx, "SELECT * FROM samples");
    EXPECT_EQ(out->mount.source, "x");
    EXPECT_FALSE(out->mount.writable);
  });
}

TEST_F(RowTest, UpdatesEveryFieldOfOneRow) {
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", full_sample());
    insert(tx, "samples", Sample{.id = "other", .reason = "kept"});
    Sample changed = full_sample();
    changed.reason = std::nullopt;
    changed.mounts.clear();
    EXPECT_EQ(update(tx, "samples", changed), 1);
    changed.id = "absent";
    EXPECT_EQ(update(tx, "samples", changed), 0);
    const auto all = select<Sample>(tx, "SELECT * FROM samples ORDER BY id DESC");
    ASSERT_EQ(all.size(), 2U);
    EXPECT_FALSE(all[0].reason);
    EXPECT_TRUE(all[0].mounts.empty());
    EXPECT_EQ(all[1].reason, "kept");
  });
}

TEST_F(RowTest, ColumnsMayComeInAnyOrderAndBeMore) {
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", full_sample());
    const auto out = select_one<Sample>(
        tx,
        "SELECT 7 AS more, \"order\", extra, envs, mounts, spare, mount, reason, ended_at, created_at, ratio,"
        " size, urgent, id FROM samples");
    EXPECT_EQ(out->order, "first");
    EXPECT_EQ(out->id, "s1");
    EXPECT_THROW(select<Sample>(tx, "SELECT id FROM samples"), std::logic_error);
  });
}

TEST_F(RowTest, AColumnOfTheWrongKindIsABug) {
  in_transaction([&](Transaction& tx) {
    insert(tx, "samples", full_sample());
    tx.execute("UPDATE samples SET size = 'much'");
    EXPECT_THROW(select<Sample>(tx, "SELECT * FROM samples"), std::logic_error);
    tx.execute("UPDATE samples SET size = 1, mounts = '{'");
    EXPECT_THROW(select<Sample>(tx, "SELECT * FROM samples"), std::logic_error);
    tx.execute("UPDATE samples SET mounts = '[{\"source\":1}]'");
    EXPECT_THROW(select<Sample>(tx, "SELECT * FROM samples"), std::logic_error);
  });
}

}  // namespace
}  // namespace lathe::db
