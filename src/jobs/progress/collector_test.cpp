#include "jobs/progress/collector.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lathe::progress {
namespace {

class CollectorTest : public testing::Test {
 protected:
  CollectorTest() {
    std::string made = "/tmp/collector-XXXXXX";
    root_ = mkdtemp(made.data());
  }
  ~CollectorTest() override { std::filesystem::remove_all(root_); }

  void append(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name, std::ios::app) << text;
  }
  Collector collector() {
    Collector::Sources sources{.log_path = root_ + "/rank-0.log", .directories = {}, .since = {}};
    std::filesystem::create_directories(root_ + "/out");
    sources.directories.push_back(*Directory::open(root_ + "/out"));
    return Collector(std::move(sources));
  }
  std::string root_;
};

TEST_F(CollectorTest, TellsOnlyWhatIsNewAndWaitsForWholeLines) {
  auto c = collector();
  EXPECT_TRUE(c.look().metrics.empty());
  append("rank-0.log", "{'loss': 1.0, 'epoch': 1}\n{'lo");
  EXPECT_EQ(c.look().metrics.size(), 2u);
  EXPECT_TRUE(c.look().metrics.empty());
  append("rank-0.log", "ss': 2.0}\n");
  const auto found = c.look();
  ASSERT_EQ(found.metrics.size(), 1u);
  EXPECT_EQ(found.metrics[0].value, 2.0);
}

TEST_F(CollectorTest, ReadsABarThatNeverEndsItsLine) {
  auto c = collector();
  append("rank-0.log", "\r 10%|# | 1/10 [00:01<00:09]");
  EXPECT_DOUBLE_EQ(c.look().fraction.value_or(0), 0.1);
  append("rank-0.log", "\r 20%|## | 2/10 [00:02<00:08]");
  EXPECT_DOUBLE_EQ(c.look().fraction.value_or(0), 0.2);
}

TEST_F(CollectorTest, ReadsFilesOnceAndGrowingOnesOn) {
  auto c = collector();
  append("out/metrics.json", R"({"perplexity": 5.5})");
  append("out/trainer_log.jsonl", "{\"current_steps\":1,\"total_steps\":4,\"loss\":3}\n");
  append("out/.checkpoint-9.tmp/trainer_state.json", R"({"global_step":9,"max_steps":9})");
  EXPECT_EQ(c.look().metrics.size(), 2u);
  EXPECT_TRUE(c.look().metrics.empty());
  append("out/trainer_log.jsonl", "{\"current_steps\":2,\"total_steps\":4,\"loss\":2}\n");
  const auto found = c.look();
  ASSERT_EQ(found.metrics.size(), 1u);
  EXPECT_EQ(found.metrics[0].step, 2);
}

TEST_F(CollectorTest, FollowsNoLinkOutOfTheDirectory) {
  auto c = collector();
  append("secret.json", R"({"stolen": 1})");
  std::filesystem::create_symlink("../secret.json", root_ + "/out/metrics.json");
  EXPECT_TRUE(c.look().metrics.empty());
}

}  // namespace
}  // namespace lathe::progress
