// What is special to runs that are processes: everything may be killed at any moment.
#include "engines/process/process_engine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "base/ids.h"
#include "base/subprocess.h"
#include "engines/supervised/cgroup.h"
#include "engines/supervised/record.h"

namespace lathe::engines {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

bool is_dead(std::int64_t pid) {
  const std::string stat = slurp(fmt::format("/proc/{}/stat", pid));
  return stat.empty() || stat.find(") Z") != std::string::npos || stat.find(") X") != std::string::npos;
}

class ProcessEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    base_ = fs::temp_directory_path() / ("lathe-process-" + random_hex(6));
    fs::create_directories(base_ / "shared");
    if (::geteuid() == 0) {
      ASSERT_EQ(::chown((base_ / "shared").c_str(), kJobUid, kJobUid), 0);
    }
    if (!open()->capabilities().usable) GTEST_SKIP();
  }
  void TearDown() override { fs::remove_all(base_); }

  std::unique_ptr<ProcessEngine> open() const {
    return std::make_unique<ProcessEngine>(ProcessEngine::Options{.state_dir = base_ / "state"});
  }

  LaunchPlan plan(const std::string& run_id, std::string script, std::size_t ranks = 1) const {
    LaunchPlan out;
    out.run_id = run_id;
    out.argv = {"/bin/sh", "-c", std::move(script)};
    out.ranks.resize(ranks);
    out.mounts = {{base_, "shared", "/shared", true}};
    out.log_dir = base_ / "logs";
    out.ranks[0].resources = {.cpus = 1, .memory_bytes = 64 << 20, .pids = 50};
    return out;
  }

  RunStatus wait_for(Engine& engine, const std::string& run_id, RankState state) const {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < deadline) {
      auto status = engine.inspect(run_id);
      if (status.ok() && status->state >= state) return *status;
      std::this_thread::sleep_for(2ms);
    }
    ADD_FAILURE() << "waited too long for " << run_id;
    return {};
  }

  /// The launch record of a run, while it is there.
  LaunchRecord record_of(const std::string& run_id) const {
    const auto folder = RunFolder::open(AT_FDCWD, base_ / "state" / run_id);
    return **folder->read<LaunchRecord>(RunFolder::kLaunch);
  }

  std::int64_t supervisor_of(const std::string& run_id) const {
    const auto folder = RunFolder::open(AT_FDCWD, base_ / "state" / run_id);
    const auto claim = folder->read<ClaimRecord>(RunFolder::kClaim);
    return (*claim)->pid;
  }

  void expect_nothing_left(Engine& engine, const std::vector<std::string>& runs) const {
    for (const auto& run_id : runs) {
      const LaunchRecord record = record_of(run_id);
      EXPECT_TRUE(engine.remove(run_id).ok()) << run_id;
      for (const auto& part : record.cgroups)
        EXPECT_FALSE(fs::exists(part.directory + "/" + rank_name(record, 0)));
    }
    EXPECT_TRUE(engine.list()->empty());
    EXPECT_TRUE(fs::is_empty(base_ / "state"));
  }

  fs::path base_;
};

TEST_F(ProcessEngineTest, ARunDiesWithItsSupervisorAndIsCalledLost) {
  auto engine = open();
  ASSERT_TRUE(engine->start(plan("run", "sleep 1000 & setsid sleep 1000 & sleep 1000", 2)).ok());
  const auto running = wait_for(*engine, "run", RankState::running);
  ::kill(static_cast<pid_t>(supervisor_of("run")), SIGKILL);
  const auto status = wait_for(*engine, "run", RankState::ended);
  EXPECT_EQ(status.verdict().cause, EndCause::lost);
  for (const auto& rank : running.ranks) EXPECT_TRUE(is_dead(rank.pid));
  EXPECT_TRUE(engine->start(plan("run", "echo again > /shared/again")).ok());
  EXPECT_EQ(wait_for(*engine, "run", RankState::ended).verdict().cause, EndCause::lost);
  EXPECT_FALSE(fs::exists(base_ / "shared" / "again"));
  expect_nothing_left(*engine, {"run"});
}

TEST_F(ProcessEngineTest, ALossIsNoticedByTheNextEngineToo) {
  ASSERT_TRUE(open()->start(plan("run", "sleep 1000")).ok());
  auto engine = open();
  wait_for(*engine, "run", RankState::running);
  const auto supervisor = supervisor_of("run");
  engine.reset();
  ::kill(static_cast<pid_t>(supervisor), SIGKILL);
  engine = open();
  EXPECT_EQ(wait_for(*engine, "run", RankState::ended).verdict().cause, EndCause::lost);
  expect_nothing_left(*engine, {"run"});
}

TEST_F(ProcessEngineTest, ACopyOfItsDirectoryLeavesTheRunsOfTheOriginalAlone) {
  auto engine = open();
  ASSERT_TRUE(engine->start(plan("run", "sleep 1000")).ok());
  const auto running = wait_for(*engine, "run", RankState::running);
  for (const bool claimed : {true, false}) {
    const std::string from = base_ / "state", to = base_ / (claimed ? "copy" : "earlier copy");
    ASSERT_TRUE(run_command({.argv = {"cp", "-a", from, to}})->success());
    if (!claimed)
      for (const char* file : {"claim.json", "rank-0.start.json"}) fs::remove(fs::path(to) / "run" / file);
    ProcessEngine copy({.state_dir = to});
    EXPECT_EQ(wait_for(copy, "run", RankState::ended).verdict().cause,
              claimed ? EndCause::lost : EndCause::launch_failed);
    EXPECT_TRUE(copy.remove("run").ok());
  }
  EXPECT_EQ(engine->inspect("run")->state, RankState::running);
  EXPECT_FALSE(is_dead(running.ranks[0].pid));
  EXPECT_TRUE(engine->stop("run", Duration{0}).ok());
  EXPECT_EQ(wait_for(*engine, "run", RankState::ended).verdict().cause, EndCause::stopped);
  expect_nothing_left(*engine, {"run"});
}

TEST_F(ProcessEngineTest, AReusedPidIsNotMistakenForTheSupervisor) {
  auto engine = open();
  ASSERT_TRUE(engine->start(plan("run", "true")).ok());
  wait_for(*engine, "run", RankState::ended);
  engine.reset();
  const fs::path folder = base_ / "state" / "run";
  fs::remove(folder / "rank-0.end.json");
  std::ofstream(folder / "claim.json") << R"({"pid":)" << ::getpid() << "}";
  engine = open();
  EXPECT_EQ(wait_for(*engine, "run", RankState::ended).verdict().cause, EndCause::lost);
  expect_nothing_left(*engine, {"run"});
}

TEST_F(ProcessEngineTest, WhatASystemCallRefusedIsSaidToBeOfTheSandbox) {
  auto engine = open();
  auto wrong = plan("run", "true");
  wrong.mounts[0].target = "/usr/bin/env/shared";
  ASSERT_TRUE(engine->start(wrong).ok());
  const auto end = wait_for(*engine, "run", RankState::ended).verdict();
  EXPECT_EQ(end.cause, EndCause::launch_failed);
  EXPECT_THAT(end.message.en, testing::HasSubstr("sandbox cannot be set up: mount at /usr/bin/env/shared: "
                                                 "Not a directory"));
  EXPECT_THAT(end.message.zh, testing::HasSubstr("无法建立作业的沙箱"));
  expect_nothing_left(*engine, {"run"});
}

TEST_F(ProcessEngineTest, ASupervisorThatCannotStartEndsTheRun) {
  ProcessEngine engine({.state_dir = base_ / "state", .supervisor = {"/bin/false"}});
  ASSERT_TRUE(engine.start(plan("run", "true")).ok());
  EXPECT_EQ(wait_for(engine, "run", RankState::ended).verdict().cause, EndCause::launch_failed);
  ProcessEngine missing({.state_dir = base_ / "state", .supervisor = {"/no/such/program"}});
  EXPECT_FALSE(missing.start(plan("other", "true")).ok());
}

TEST_F(ProcessEngineTest, AHalfMadeFolderIsNoRun) {
  fs::create_directories(base_ / "state" / "half");
  std::ofstream(base_ / "state" / "half" / "lock").flush();
  auto engine = open();
  EXPECT_TRUE(engine->list()->empty());
  ASSERT_TRUE(engine->start(plan("half", "exit 4")).ok());
  EXPECT_EQ(wait_for(*engine, "half", RankState::ended).verdict().exit_code, 4);
}

/// Starts the runs in a process of their own and kills it after a while.
void start_and_be_killed(const std::function<void()>& start, std::chrono::microseconds after) {
  const pid_t starter = ::fork();
  if (starter == 0) {
    start();
    while (true) ::pause();
  }
  std::this_thread::sleep_for(after);
  ::kill(starter, SIGKILL);
  ::waitpid(starter, nullptr, 0);
}

TEST_F(ProcessEngineTest, RunsOnceThoughTheServerIsKilledAtAnyMoment) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 12; ++round) {
    std::vector<std::string> runs;
    for (int i = 0; i < 3; ++i) runs.push_back(fmt::format("run-{}-{}", round, i));
    auto start_all = [&](Engine& engine) {
      for (const auto& run_id : runs)
        EXPECT_TRUE(engine.start(plan(run_id, fmt::format("echo {0} >> /shared/{0}; echo $$", run_id))).ok());
    };
    const auto moment = std::chrono::microseconds(random() % 40'000);
    start_and_be_killed([&] { start_all(*open()); }, moment);
    start_and_be_killed([&] { start_all(*open()); }, moment / 2);
    auto engine = open();
    start_all(*engine);
    for (const auto& run_id : runs) {
      const auto status = wait_for(*engine, run_id, RankState::ended);
      EXPECT_EQ(status.verdict().exit_code, 0) << status.verdict().message.en;
      EXPECT_EQ(slurp(base_ / "shared" / run_id), run_id + "\n") << "after " << moment.count() << " us";
    }
    expect_nothing_left(*engine, runs);
  }
}

TEST_F(ProcessEngineTest, RunsAtMostOnceThoughTheSupervisorIsKilledAtAnyMoment) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 12; ++round) {
    const std::string run_id = fmt::format("run-{}", round);
    auto engine = open();
    const auto plan = this->plan(run_id, fmt::format("echo x >> /shared/{}; sleep 0.01; exit 3", run_id));
    ASSERT_TRUE(engine->start(plan).ok());
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
    const auto folder = RunFolder::open(AT_FDCWD, base_ / "state" / run_id);
    if (const auto claim = folder->read<ClaimRecord>(RunFolder::kClaim); claim.ok() && *claim)
      ::kill(static_cast<pid_t>((*claim)->pid), SIGKILL);
    if (round % 2) engine = open();
    EXPECT_TRUE(engine->start(plan).ok());
    const auto end = wait_for(*engine, run_id, RankState::ended).verdict();
    EXPECT_TRUE(end.cause == EndCause::lost || end.exit_code == 3) << end.message.en;
    EXPECT_LE(slurp(base_ / "shared" / run_id).size(), 2U);
    expect_nothing_left(*engine, {run_id});
  }
}

TEST_F(ProcessEngineTest, WorksInAUnifiedHierarchyToo) {
  fs::path unified = "/sys/fs/cgroup/unified";  // beside version 1 it has no controllers, but is there
  if (!fs::exists(unified / "cgroup.procs")) unified = "/sys/fs/cgroup";
  if (!fs::exists(unified / "cgroup.subtree_control") || ::access(unified.c_str(), W_OK) != 0) GTEST_SKIP();
  ProcessEngine engine({.state_dir = base_ / "state", .cgroups = CgroupTree({{"unified", unified}})});
  auto two = plan("run", "(setsid sleep 1000 &); echo up; exec sleep 1000");
  two.ranks[0].resources.pids = 0;  // without that controller it would count all of the user's processes
  ASSERT_TRUE(engine.start(two).ok());
  const auto running = wait_for(engine, "run", RankState::running);
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (slurp(base_ / "logs" / "rank-0.log") != "up\n" && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(2ms);
  const std::string group = rank_name(record_of("run"), 0);
  EXPECT_THAT(slurp(unified / group / "cgroup.procs"),
              testing::HasSubstr(std::to_string(running.ranks[0].pid)));
  EXPECT_GT(engine.usage("run")->cpu_seconds, 0.0);
  EXPECT_FALSE(engine.capabilities().limits_memory);
  EXPECT_TRUE(CgroupTree({{"unified", unified}}).group(group).destroy());  // by cgroup.kill
  const auto end = wait_for(engine, "run", RankState::ended).verdict();
  EXPECT_EQ(end.signal, SIGKILL) << end.message.en;
  EXPECT_TRUE(engine.remove("run").ok());
}

TEST(GpuEnvironment, NamesTheDevicesAndTheShares) {
  LaunchPlan plan;
  plan.ranks.resize(1);
  EXPECT_THAT(environment(plan, 0, {}), testing::Contains("CUDA_VISIBLE_DEVICES="));
  plan.ranks[0].resources.gpus = {{.index = 0, .uuid = "GPU-a"}, {.index = 1, .mig_uuid = "MIG-b"}};
  EXPECT_THAT(environment(plan, 0, {}), testing::Contains("CUDA_VISIBLE_DEVICES=GPU-a,MIG-b"));
  plan.ranks[0].resources.gpus = {{.uuid = "GPU-a",
                                   .share = true,
                                   .share_memory_bytes = std::int64_t{4} << 30,
                                   .share_cores_percent = 30}};
  const auto shared = environment(plan, 0, {.mps_directory = "/tmp/nvidia-mps"});
  EXPECT_THAT(shared, testing::IsSupersetOf({"CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps",
                                             "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=30",
                                             "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=4096M"}));
}

TEST_F(ProcessEngineTest, RefusesSharesThatNobodyHoldsItTo) {
  auto engine = open();
  if (engine->capabilities().gpu_shares) GTEST_SKIP();
  auto plan = this->plan("run", "true");
  plan.ranks[0].resources.gpus = {{.share = true, .share_cores_percent = 50}};
  EXPECT_EQ(engine->start(plan).error().code, Code::failed_precondition);
  EXPECT_TRUE(engine->list()->empty());
}

TEST_F(ProcessEngineTest, WorksWithoutRootToo) {
  if (::geteuid() != 0) GTEST_SKIP();
  const std::string self = fs::read_symlink("/proc/self/exe");
  const std::vector<std::string> as_nobody = {"setpriv", "--reuid=64999", "--regid=64999", "--clear-groups"};
  auto command = as_nobody;
  command.push_back(self);
  auto listed = command;
  listed.push_back("--gtest_list_tests");
  const auto reachable = run_command({.argv = listed});
  if (!reachable.ok() || !reachable->success()) GTEST_SKIP() << "another user cannot run " << self;
  command.push_back(
      "--gtest_filter=*EngineContract.TellsSignals*:*EngineContract.Mounts*:*EngineContract.Shows*:"
      "*EngineContract.HasNoRights*:*EngineContract.HidesTheNetwork*:*EngineContract.RunsAllRanks*:"
      "*EngineContract.KnowsItsRuns*:*EngineContract.StopsPolitely*-*/docker:*/podman");
  const auto outcome = run_command({.argv = command, .timeout = 60s});
  ASSERT_TRUE(outcome.ok()) << outcome.error().describe(Language::en);
  EXPECT_TRUE(outcome->success()) << outcome->output;
}

TEST_F(ProcessEngineTest, PrintsHowLongALaunchTakes) {
  auto engine = open();
  std::vector<double> milliseconds;
  for (int i = 0; i < 10; ++i) {
    const std::string run_id = fmt::format("run-{}", i);
    const auto begin = std::chrono::system_clock::now();
    ASSERT_TRUE(engine->start(plan(run_id, "true")).ok());
    const auto status = wait_for(*engine, run_id, RankState::running);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(*status.started_at - begin).count());
    wait_for(*engine, run_id, RankState::ended);
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  std::cout << fmt::format("launch: median {:.0f} ms, best {:.0f} ms\n", milliseconds[5], milliseconds[0]);
}

}  // namespace
}  // namespace lathe::engines
