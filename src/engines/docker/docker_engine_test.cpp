// What is special to runs in containers: the daemon may be killed, be away, or not do what it was asked.
#include "engines/docker/docker_engine.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/ids.h"
#include "base/subprocess.h"
#include "engines/docker/container_spec.h"
#include "engines/docker/daemon_testing.h"
#include "engines/supervised/record.h"

namespace lathe::engines {
namespace {

using namespace std::chrono_literals;
using testing::BusyboxImage;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TestDaemon;
namespace fs = std::filesystem;

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void eventually(const std::function<bool()>& condition, const char* what) {
  const auto deadline = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << what;
    std::this_thread::sleep_for(2ms);
  }
}

/// Daemons that are only used, never killed: one of each for all the tests of the program.
TestDaemon& shared_daemon(TestDaemon::Kind kind) {
  static TestDaemon docker(TestDaemon::Kind::docker);
  static TestDaemon podman(TestDaemon::Kind::podman);
  return kind == TestDaemon::Kind::docker ? docker : podman;
}

class DockerEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(base_ / "shared");
    ASSERT_EQ(::chown((base_ / "shared").c_str(), kJobUid, kJobUid), 0);
  }
  void TearDown() override { fs::remove_all(base_); }

  std::unique_ptr<DockerEngine> open(const TestDaemon& daemon) const {
    return std::make_unique<DockerEngine>(testing::engine_options(base_ / "state", daemon));
  }

  LaunchPlan plan(std::string script, std::size_t ranks = 1) const {
    LaunchPlan out;
    out.run_id = "run";
    out.image = BusyboxImage::kName;
    out.argv = {"/bin/sh", "-c", std::move(script)};
    out.ranks.resize(ranks);
    out.mounts = {{base_, "shared", "/shared", true}};
    out.log_dir = base_ / "logs";
    return out;
  }

  static RunStatus wait_for(Engine& engine, RankState state, const std::string& run_id = "run") {
    RunStatus out;
    eventually(
        [&] {
          auto status = engine.inspect(run_id);
          if (!status.ok()) return false;
          out = *status;
          return out.state >= state;
        },
        "the run's state");
    return out;
  }
  std::string log() const { return slurp(base_ / "logs" / "rank-0.log"); }
  std::int64_t supervisor() const {
    const auto folder = RunFolder::open(AT_FDCWD, base_ / "state" / "run");
    return (*folder->read<ClaimRecord>(RunFolder::kClaim))->pid;
  }
  static std::size_t containers(const TestDaemon& daemon) {
    const auto found = daemon.api().list(kRunLabel, "run");
    return found.ok() ? found->size() : 999;
  }
  void expect_removable(Engine& engine, const TestDaemon& daemon) const {
    const auto removed = engine.remove("run");
    EXPECT_TRUE(removed.ok()) << removed.error().describe(Language::en);
    EXPECT_THAT(*engine.list(), IsEmpty());
    EXPECT_EQ(containers(daemon), 0U);
  }

  const fs::path base_ = fs::temp_directory_path() / ("lathe-docker-" + random_hex(6));
};

class EitherDaemon : public DockerEngineTest, public ::testing::WithParamInterface<TestDaemon::Kind> {};

TEST_P(EitherDaemon, LosesNothingWhenTheDaemonIsKilled) {
  TestDaemon daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(
      engine->start(plan("echo before; while [ ! -e /shared/go ]; do sleep 0.01; done; seq 1 20000; exit 7"))
          .ok());
  eventually([&] { return log() == "before\n"; }, "the first line");
  daemon.kill();
  std::ofstream(base_ / "shared" / "go").flush();
  // It writes and ends while no daemon is there to hear it.
  const auto status = wait_for(*engine, RankState::ended);
  EXPECT_EQ(status.verdict().cause, EndCause::exited);
  EXPECT_EQ(status.verdict().exit_code, 7);
  EXPECT_TRUE(log().ends_with("\n20000\n"));
  EXPECT_TRUE(engine->remove("run").ok());
  daemon.start();
  eventually([&] { return containers(daemon) == 0; }, "the removal of the container");
}

TEST_P(EitherDaemon, ACopyOfItsDirectoryLeavesTheContainersOfTheOriginalAlone) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("sleep 1000")).ok());
  wait_for(*engine, RankState::running);
  const std::string from = base_ / "state", to = base_ / "copy";
  ASSERT_TRUE(run_command({.argv = {"cp", "-a", from, to}})->success());
  {
    DockerEngine copy(testing::engine_options(to, daemon));
    EXPECT_EQ(wait_for(copy, RankState::ended).verdict().cause, EndCause::lost);
    EXPECT_TRUE(copy.remove("run").ok());
    std::this_thread::sleep_for(2500ms);  // it sweeps every second
  }
  EXPECT_EQ(containers(daemon), 1U);
  EXPECT_EQ(engine->inspect("run")->state, RankState::running);
  EXPECT_TRUE(engine->stop("run", Duration{0}).ok());
  EXPECT_EQ(wait_for(*engine, RankState::ended).verdict().cause, EndCause::stopped);
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, ARunGoesOnWhileDaemonAndServerAreRestarted) {
  TestDaemon daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("echo up; while [ ! -e /shared/go ]; do sleep 0.01; done; echo down")).ok());
  eventually([&] { return log() == "up\n"; }, "the first line");
  engine.reset();
  daemon.kill();
  daemon.start();
  engine = open(daemon);
  EXPECT_EQ(engine->inspect("run")->state, RankState::running);
  EXPECT_TRUE(engine->start(plan("echo again")).ok());
  std::ofstream(base_ / "shared" / "go").flush();
  EXPECT_TRUE(wait_for(*engine, RankState::ended).verdict().success());
  EXPECT_EQ(log(), "up\ndown\n");
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, ARunThatIsBeingStartedWhenTheDaemonIsKilledRunsOnceAndSucceeds) {
  TestDaemon daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("true")).ok());  // the image is there from now on
  EXPECT_TRUE(wait_for(*engine, RankState::ended).verdict().success());
  expect_removable(*engine, daemon);
  int round = 0;
  for (const auto moment : {0ms, 30ms, 60ms, 100ms, 150ms, 220ms}) {
    LaunchPlan once = plan(fmt::format("echo {} >> /shared/once", round));
    once.run_id = fmt::format("run-{}", round++);
    ASSERT_TRUE(engine->start(once).ok());
    std::this_thread::sleep_for(moment);
    daemon.kill();
    daemon.start();
    const auto status = wait_for(*engine, RankState::ended, once.run_id);
    EXPECT_TRUE(status.verdict().success()) << moment.count() << " ms: " << status.verdict().message.en;
    EXPECT_TRUE(engine->remove(once.run_id).ok());
  }
  EXPECT_EQ(slurp(base_ / "shared" / "once"), "0\n1\n2\n3\n4\n5\n");
}

TEST_P(EitherDaemon, ARunDiesWithItsSupervisorAndIsCalledLost) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("setsid sleep 1000 & echo up; sleep 1000", 2)).ok());
  const auto running = wait_for(*engine, RankState::running);
  ::kill(static_cast<pid_t>(supervisor()), SIGKILL);
  const auto status = wait_for(*engine, RankState::ended);
  EXPECT_EQ(status.verdict().cause, EndCause::lost);
  for (const auto& rank : running.ranks) {
    ASSERT_GT(rank.pid, 0);
    eventually([&] { return ::kill(static_cast<pid_t>(rank.pid), 0) != 0; }, "the container's end");
  }
  EXPECT_TRUE(engine->start(plan("echo again")).ok());
  EXPECT_EQ(wait_for(*engine, RankState::ended).verdict().cause, EndCause::lost);
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, ASupervisorKilledAtAnyMomentLeavesNothingRunning) {
  const auto& daemon = shared_daemon(GetParam());
  for (int i = 0; i < 8; ++i) {
    auto engine = open(daemon);
    ASSERT_TRUE(engine->start(plan("echo x >> /shared/ran; sleep 1000")).ok());
    eventually([&] { return fs::exists(base_ / "state/run/claim.json"); }, "the claim");
    std::this_thread::sleep_for(25ms * i);
    ::kill(static_cast<pid_t>(supervisor()), SIGKILL);
    engine = open(daemon);
    EXPECT_EQ(wait_for(*engine, RankState::ended).verdict().cause, EndCause::lost);
    // The daemon may be about to start what it was asked for: that finds nobody, and ends.
    eventually([&] { return engine->remove("run").ok() && containers(daemon) == 0; }, "removal");
  }
  EXPECT_LE(slurp(base_ / "shared/ran").size(), 2U * 8);
}

TEST_P(EitherDaemon, WhatWasKilledFromOutsideIsLost) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("sleep 1000")).ok());
  wait_for(*engine, RankState::running);
  const auto found = daemon.api().list(kRunLabel, "run");
  ASSERT_EQ(found->size(), 1U);
  ASSERT_TRUE(daemon.api().remove(found->front().id).ok());  // as an administrator's `docker rm --force`
  EXPECT_EQ(wait_for(*engine, RankState::ended).verdict().cause, EndCause::lost);
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, SaysThatTheDaemonIsAway) {
  TestDaemon daemon(GetParam());
  daemon.kill();
  auto engine = open(daemon);
  EXPECT_FALSE(engine->capabilities().usable);
  EXPECT_EQ(engine->start(plan("true")).error().code, Code::unavailable);
  daemon.start();
  EXPECT_TRUE(engine->capabilities().usable);
  ASSERT_TRUE(engine->start(plan("true")).ok());
  EXPECT_TRUE(wait_for(*engine, RankState::ended).verdict().success());
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, LoadsAnImageOnceAndOnlyWhenItIsNotThere) {
  TestDaemon daemon(GetParam());
  std::atomic<int> loads{0};
  std::atomic<bool> may_load{false};
  auto options = testing::engine_options(base_ / "state", daemon);
  options.retry = 10ms;
  options.find_image = [&](const std::string& image) -> Result<ImageTar> {
    ImageTar tar = TRY(testing::busybox_image().find(image));
    tar.write = [&, write = tar.write](const auto& sink) -> Result<void> {
      if (!may_load) return Error{Code::unavailable, {"稍后", "later"}};
      ++loads;
      return write(sink);
    };
    return tar;
  };
  auto engine = std::make_unique<DockerEngine>(options);
  std::vector<std::string> runs;
  for (int i = 0; i < 3; ++i) {
    auto plan = this->plan("true");
    plan.run_id = runs.emplace_back(fmt::format("run-{}", i));
    ASSERT_TRUE(engine->start(plan).ok());
    ASSERT_TRUE(engine->start(plan).ok());
  }
  EXPECT_EQ(engine->inspect("run-0")->state, RankState::starting);
  EXPECT_THAT(engine->inspect("run-0")->detail.en, HasSubstr("image"));
  ASSERT_TRUE(engine->stop("run-1", 0ms).ok());
  EXPECT_EQ(engine->inspect("run-1")->verdict().cause, EndCause::stopped);
  // The server goes while the image is on its way: the next one goes on.
  engine = std::make_unique<DockerEngine>(options);
  EXPECT_EQ(engine->inspect("run-2")->state, RankState::starting);
  may_load = true;
  EXPECT_TRUE(wait_for(*engine, RankState::ended, "run-0").verdict().success());
  EXPECT_TRUE(wait_for(*engine, RankState::ended, "run-2").verdict().success());
  EXPECT_EQ(loads, 1);
  for (const auto& run : runs) EXPECT_TRUE(engine->remove(run).ok());

  auto unknown = plan("true");
  unknown.image = "sha256:" + std::string(64, '2');
  EXPECT_EQ(engine->start(unknown).error().code, Code::not_found);
}

TEST_P(EitherDaemon, RunsNothingWhenAFolderWasReplacedMeanwhile) {
  TestDaemon daemon(GetParam());
  {
    auto engine = open(daemon);
    ASSERT_TRUE(engine->start(plan("true")).ok());
    wait_for(*engine, RankState::ended);
    expect_removable(*engine, daemon);
  }
  auto options = testing::engine_options(base_ / "state", daemon);
  const std::string self = fs::read_symlink("/proc/self/exe");
  // A supervisor that waits to be let go.
  const std::string waits = fmt::format("while [ ! -e {}/go ]; do sleep 0.01; done; exec {} supervise \"$0\"",
                                        base_.string(), self);
  options.supervisor = {"/bin/sh", "-c", waits};
  auto engine = std::make_unique<DockerEngine>(options);
  fs::create_directories(base_ / "users/alice/data");
  fs::create_directories(base_ / "users/bob");
  std::ofstream(base_ / "users/bob/secret") << "bob's";
  auto plan = this->plan("cat /data/secret");
  plan.mounts = {{base_ / "users/alice", "data", "/data", true}};
  ASSERT_TRUE(engine->start(plan).ok());
  daemon.pause();
  std::ofstream(base_ / "go").flush();
  // The socket is made after the mounts were found.
  eventually([&] { return fs::exists(base_ / "state/run/rank-0.socket"); }, "the supervisor");
  fs::remove(base_ / "users/alice/data");
  fs::create_directory_symlink(base_ / "users/bob", base_ / "users/alice/data");
  daemon.resume();
  const auto status = wait_for(*engine, RankState::ended);
  EXPECT_EQ(status.verdict().cause, EndCause::launch_failed);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("replaced"));
  EXPECT_EQ(log(), "");
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, KeepsTheRootReadOnlyWhereAsked) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  auto plan = this->plan("touch /tmp/a && echo tmp; touch /shared/b && echo shared; id -u");
  plan.read_only_root = true;
  ASSERT_TRUE(engine->start(plan).ok());
  EXPECT_TRUE(wait_for(*engine, RankState::ended).verdict().success());
  EXPECT_EQ(log(), fmt::format("tmp\nshared\n{}\n", kJobUid));
  const auto name = fmt::format("{}/run/launch.json", (base_ / "state").string());
  EXPECT_THAT(slurp(name), HasSubstr("\"readOnlyRoot\":true"));
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, KeepsTheImagesVariablesAndSaysNoSecretsToTheDaemon) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  auto plan = this->plan("echo $FROM_IMAGE $TOKEN $HOME; sleep 1000");
  plan.env = {{"TOKEN", "secret-token"}};
  ASSERT_TRUE(engine->start(plan).ok());
  eventually([&] { return log() == "yes secret-token /tmp\n"; }, "the log");
  const auto found = daemon.api().list(kRunLabel, "run");
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(json::print(*daemon.api().inspect(found->front().id)).find("secret-token"), std::string::npos);
  ASSERT_TRUE(engine->stop("run", 0ms).ok());
  wait_for(*engine, RankState::ended);
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, NoticesThatGpusWereNotGiven) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  auto plan = this->plan("echo trained on nothing");
  plan.ranks[0].resources.gpus = {{.index = 63, .uuid = "GPU-00000000-0000-0000-0000-000000000000"}};
  ASSERT_TRUE(engine->start(plan).ok());
  const auto status = wait_for(*engine, RankState::ended);
  EXPECT_EQ(status.verdict().cause, EndCause::launch_failed);
  // Docker refuses by itself; Podman 4 says yes and gives nothing.
  EXPECT_THAT(status.verdict().message.en,
              HasSubstr(GetParam() == TestDaemon::Kind::podman ? "silently ignored the request for GPUs"
                                                               : "could not select device driver"));
  EXPECT_EQ(log(), "");
  expect_removable(*engine, daemon);
}

TEST_P(EitherDaemon, RemovesContainersThatNobodyKnows) {
  const auto& daemon = shared_daemon(GetParam());
  auto engine = open(daemon);
  ASSERT_TRUE(engine->start(plan("sleep 1000")).ok());
  wait_for(*engine, RankState::running);
  EXPECT_EQ(containers(daemon), 1U);
  ::kill(static_cast<pid_t>(supervisor()), SIGKILL);
  engine.reset();
  fs::remove_all(base_ / "state" / "run");  // as if the daemon had been away when it was removed
  engine = open(daemon);
  eventually([&] { return containers(daemon) == 0; }, "removal of the orphan");
}

INSTANTIATE_TEST_SUITE_P(DockerEngine, EitherDaemon,
                         ::testing::Values(TestDaemon::Kind::docker, TestDaemon::Kind::podman),
                         [](const auto& info) {
                           return info.param == TestDaemon::Kind::docker ? "docker" : "podman";
                         });

TEST_F(DockerEngineTest, SlowARunIsLostWhenADockerWithoutLiveRestoreIsStopped) {
  TestDaemon daemon(TestDaemon::Kind::docker, false);
  auto engine = open(daemon);
  EXPECT_THAT(engine->capabilities().shortcomings, ::testing::SizeIs(1));
  ASSERT_TRUE(engine->start(plan("sleep 1000")).ok());
  wait_for(*engine, RankState::running);
  daemon.stop();  // which asks it to end, and after ten seconds makes it
  EXPECT_EQ(wait_for(*engine, RankState::ended).verdict().cause, EndCause::lost);
  daemon.start();
  expect_removable(*engine, daemon);
}

}  // namespace
}  // namespace lathe::engines
