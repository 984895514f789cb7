#include "engines/supervised/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/ids.h"

namespace lathe::engines {
namespace {

namespace fs = std::filesystem;

std::string slurp(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

/// Plain directories with the files a kernel would put there: what is written to them, and read from them.
class CgroupTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(base_); }
  void TearDown() override { fs::remove_all(base_); }

  void kernel_makes(const std::string& directory, const std::vector<std::string>& files) {
    fs::create_directories(base_ / directory / "run");
    for (const auto& file : files) std::ofstream(base_ / directory / "run" / file).flush();
  }
  void set(const std::string& path, const std::string& text) { std::ofstream(base_ / path) << text; }
  std::string at(const std::string& path) const { return slurp(base_ / path); }

  const fs::path base_ = fs::temp_directory_path() / ("lathe-cgroup-" + random_hex(6));
  const Resources limits_ = {.cpus = 1.5, .memory_bytes = 1 << 30, .pids = 100};
};

TEST_F(CgroupTest, WritesTheLimitsOfVersionTwo) {
  kernel_makes("v2", {"memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"});
  const CgroupTree tree({{"unified", base_ / "v2"}});
  ASSERT_TRUE(tree.group("run").create(limits_).ok());
  EXPECT_EQ(at("v2/run/memory.max"), "1073741824");
  EXPECT_EQ(at("v2/run/memory.swap.max"), "0");
  EXPECT_EQ(at("v2/run/memory.oom.group"), "1");
  EXPECT_EQ(at("v2/run/cpu.max"), "150000 100000");
  EXPECT_EQ(at("v2/run/pids.max"), "101");
}

TEST_F(CgroupTest, ReadsTheFiguresOfVersionTwo) {
  kernel_makes("v2", {});
  set("v2/run/cpu.stat", "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n");
  set("v2/run/memory.current", "4096\n");
  set("v2/run/memory.peak", "8192\n");
  set("v2/run/memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n");
  const auto group = CgroupTree({{"unified", base_ / "v2"}}).group("run");
  EXPECT_EQ(group.cpu_seconds(), 2.5);
  EXPECT_EQ(group.memory(), 4096);
  EXPECT_EQ(group.memory_peak(), 8192);
  EXPECT_EQ(group.oom_kills(), 1);
  EXPECT_TRUE(group.clone_target());
  EXPECT_TRUE(group.entrances().empty());
}

TEST_F(CgroupTest, VersionTwoHasTheControllersItsParentHandsDown) {
  fs::create_directories(base_ / "v2");
  set("v2/cgroup.subtree_control", "cpu memory\n");
  const CgroupTree tree({{"unified", base_ / "v2"}});
  EXPECT_TRUE(tree.has("cpu"));
  EXPECT_TRUE(tree.has("memory"));
  EXPECT_FALSE(tree.has("pids"));
}

TEST_F(CgroupTest, WritesTheLimitsOfVersionOne) {
  kernel_makes("memory", {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "tasks"});
  kernel_makes("cpu", {"cpu.cfs_period_us", "cpu.cfs_quota_us", "tasks"});
  kernel_makes("pids", {"pids.max", "tasks"});
  const CgroupTree tree({{"memory", base_ / "memory"}, {"cpu", base_ / "cpu"}, {"pids", base_ / "pids"}});
  const auto group = tree.group("run");
  ASSERT_TRUE(group.create(limits_).ok());
  EXPECT_EQ(at("memory/run/memory.limit_in_bytes"), "1073741824");
  EXPECT_EQ(at("memory/run/memory.memsw.limit_in_bytes"), "1073741824");
  EXPECT_EQ(at("cpu/run/cpu.cfs_period_us"), "100000");
  EXPECT_EQ(at("cpu/run/cpu.cfs_quota_us"), "150000");
  EXPECT_EQ(at("pids/run/pids.max"), "101");
  EXPECT_EQ(group.entrances().size(), 3U);
  EXPECT_FALSE(group.clone_target());
  EXPECT_FALSE(tree.has("cpuacct"));
}

TEST_F(CgroupTest, KnowsNothingOfAGroupThatIsNotThere) {
  const auto group = CgroupTree({{"unified", base_ / "v2"}}).group("gone");
  EXPECT_EQ(group.memory(), 0);
  EXPECT_EQ(group.oom_kills(), 0);
  EXPECT_FALSE(group.cpu_seconds());
  EXPECT_TRUE(group.destroy());
}

}  // namespace
}  // namespace lathe::engines
