// What every engine must do, tried on the real thing. Each engine that this machine can run is a parameter.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>

#include "base/ids.h"
#include "engines/docker/daemon_testing.h"
#include "engines/docker/docker_engine.h"
#include "engines/engine.h"
#include "engines/process/process_engine.h"

namespace lathe::engines {
namespace {

using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

struct EngineKind {
  const char* name;
  std::unique_ptr<Engine> (*make)(const fs::path& base);
  const char* image;
};

std::unique_ptr<Engine> make_process_engine(const fs::path& base) {
  ProcessEngine::Options options;
  options.state_dir = base / "state";
  options.rules.hidden_paths = {base};
  return std::make_unique<ProcessEngine>(std::move(options));
}

/// A daemon for all the tests of a kind, as long as the program runs.
template <testing::TestDaemon::Kind kind>
std::unique_ptr<Engine> make_docker_engine(const fs::path& base) {
  static const testing::TestDaemon daemon(kind);
  return std::make_unique<DockerEngine>(testing::engine_options(base / "state", daemon));
}

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

class EngineContract : public ::testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    base_ = fs::temp_directory_path() / ("lathe-engine-" + random_hex(6));
    fs::create_directories(base_);
    restart();
    if (!engine_->capabilities().usable) GTEST_SKIP() << engine_->capabilities().shortcomings.front().en;
  }

  void TearDown() override {
    if (engine_) {
      auto runs = engine_->list();
      for (const auto& run_id : *runs) {
        (void)engine_->stop(run_id, 0ms).ok();
        wait_for_end(run_id);
        EXPECT_TRUE(engine_->remove(run_id).ok());
      }
    }
    engine_.reset();
    fs::remove_all(base_);
  }

  /// As after a kill -9 of the server, but for the process.
  void restart() {
    engine_.reset();
    engine_ = GetParam().make(base_);
    engine_->on_change([this](const std::string&) {
      const std::lock_guard guard(mutex_);
      ++changes_;
      changed_.notify_all();
    });
  }

  LaunchPlan plan(std::string script, std::size_t ranks = 1) {
    LaunchPlan out;
    out.run_id = Uuid7Source(clock_).next();
    out.image = GetParam().image;
    out.argv = {"/bin/sh", "-c", std::move(script)};
    out.ranks.resize(ranks);
    for (std::size_t i = 0; i < ranks; ++i) out.ranks[i].env = {{"RANK", std::to_string(i)}};
    out.log_dir = base_ / "logs" / out.run_id;
    out.stop_grace = 20s;
    if (::geteuid() != 0) out.uid = ::geteuid();
    return out;
  }

  /// A folder of a user, which jobs may write.
  fs::path user_folder(const std::string& name) {
    const fs::path path = base_ / "users" / name;
    fs::create_directories(path);
    hand_over(path);
    return path;
  }

  static void hand_over(const fs::path& path) {
    if (::geteuid() != 0) return;
    EXPECT_EQ(::chown(path.c_str(), kJobUid, kJobUid), 0);
  }

  std::string log(const LaunchPlan& plan, std::size_t rank = 0) { return slurp(rank_log_path(plan, rank)); }

  template <class Condition>
  RunStatus wait_until(const std::string& run_id, Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (true) {
      int seen;
      {
        const std::lock_guard guard(mutex_);
        seen = changes_;
      }
      auto status = engine_->inspect(run_id);
      if (!status.ok()) {
        ADD_FAILURE() << status.error().describe(Language::en);
        return {};
      }
      if (condition(*status)) return *status;
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "waited too long for " << run_id;
        return *status;
      }
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, 200ms, [&] { return changes_ != seen; });
    }
  }
  RunStatus wait_for_end(const std::string& run_id) {
    return wait_until(run_id, [](const RunStatus& s) { return s.state == RankState::ended; });
  }
  void wait_for_log(const LaunchPlan& plan, const std::string& text, std::size_t rank = 0) {
    wait_until(plan.run_id, [&](const RunStatus& s) {
      return s.state == RankState::ended || log(plan, rank).find(text) != std::string::npos;
    });
  }

  RunStatus run(const LaunchPlan& plan) {
    auto started = engine_->start(plan);
    EXPECT_TRUE(started.ok()) << started.error().describe(Language::en);
    return wait_for_end(plan.run_id);
  }

  SystemClock clock_;
  fs::path base_;
  std::unique_ptr<Engine> engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int changes_ = 0;
};

TEST_P(EngineContract, TellsExitCodes) {
  for (int code : {0, 1, 7, 255}) {
    const auto plan = this->plan(fmt::format("exit {}", code));
    const auto status = run(plan);
    EXPECT_EQ(status.verdict().cause, EndCause::exited);
    EXPECT_EQ(status.verdict().exit_code, code);
    EXPECT_EQ(status.verdict().success(), code == 0);
    ASSERT_TRUE(status.started_at && status.ended_at);
    EXPECT_LE(*status.started_at, *status.ended_at);
  }
}

TEST_P(EngineContract, TellsSignals) {
  const auto status = run(plan("kill -SEGV $$"));
  EXPECT_EQ(status.verdict().cause, EndCause::signaled);
  EXPECT_EQ(status.verdict().signal, SIGSEGV);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("SIGSEGV"));
}

TEST_P(EngineContract, TellsWhyACommandDoesNotStart) {
  auto missing = plan("");
  missing.argv = {"no-such-command"};
  auto status = run(missing);
  EXPECT_EQ(status.verdict().exit_code, 127);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("no-such-command: command not found"));

  auto text = plan("");
  text.argv = {"/etc/passwd"};
  status = run(text);
  EXPECT_EQ(status.verdict().exit_code, 126);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("not executable"));

  auto nowhere = plan("true");
  nowhere.work_dir = "/no/such/place";
  status = run(nowhere);
  EXPECT_EQ(status.verdict().cause, EndCause::launch_failed);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("/no/such/place"));

  auto unmounted = plan("true");
  unmounted.mounts = {{base_, "gone", "/data", false}};
  status = run(unmounted);
  EXPECT_EQ(status.verdict().cause, EndCause::launch_failed);
  EXPECT_THAT(status.verdict().message.en, HasSubstr("gone"));
  EXPECT_FALSE(status.started_at);
}

TEST_P(EngineContract, RefusesPlansThatMakeNoSense) {
  const auto good = plan("true");
  auto refused = [&](auto change) {
    LaunchPlan plan = good;
    change(plan);
    const auto result = engine_->start(plan);
    return !result.ok() && result.error().code == Code::invalid_argument;
  };
  EXPECT_TRUE(refused([](auto& p) { p.run_id = "../x"; }));
  EXPECT_TRUE(refused([](auto& p) { p.argv.clear(); }));
  EXPECT_TRUE(refused([](auto& p) { p.ranks.clear(); }));
  EXPECT_TRUE(refused([](auto& p) { p.uid = 0; }));
  EXPECT_TRUE(refused([](auto& p) { p.env = {{"A=B", "c"}}; }));
  EXPECT_TRUE(refused([](auto& p) { p.mounts = {{"/", "etc", "/proc/1", false}}; }));
  EXPECT_TRUE(refused([](auto& p) { p.mounts = {{"/", "../etc", "/data", false}}; }));
  EXPECT_TRUE(refused([](auto& p) { p.mounts = {{"/", "etc", "/a/../etc", false}}; }));
  EXPECT_TRUE(refused([](auto& p) { p.argv = {std::string("a\0b", 3)}; }));
  EXPECT_EQ(engine_->inspect(good.run_id).error().code, Code::not_found);
}

TEST_P(EngineContract, KeepsEveryByteOfTheLog) {
  const auto plan = this->plan("echo out; echo err >&2; echo to-dev >/dev/stdout; printf 'no newline'");
  run(plan);
  EXPECT_EQ(log(plan), "out\nerr\nto-dev\nno newline");

  const auto burst = this->plan("seq 1 1500000; printf end");
  run(burst);
  const std::string text = log(burst);
  EXPECT_GT(text.size(), 10'000'000U);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1'500'000);
  EXPECT_THAT(text, EndsWith("1500000\nend"));
}

TEST_P(EngineContract, LimitsTheLogAndSaysSo) {
  auto plan = this->plan("echo begin; seq 1 200000; echo last words");
  plan.max_log_bytes = 10'000;
  run(plan);
  const std::string text = log(plan);
  EXPECT_LT(text.size(), 10'000U + 64 * 1024 + 500);
  EXPECT_EQ(text.substr(0, 8), "begin\n1\n");
  EXPECT_THAT(text, HasSubstr("[lathe] the log has reached its limit"));
  EXPECT_THAT(text, HasSubstr("bytes are missing here"));
  EXPECT_THAT(text, EndsWith("200000\nlast words\n"));
}

TEST_P(EngineContract, GivesThePlansEnvironmentAndNothingElse) {
  ::setenv("LATHE_ADMIN_PASSWORD", "secret", 1);
  auto plan = this->plan("env | sort");
  plan.env = {{"A", "1"}, {"B", "x y; $(touch /tmp/z) \"'\n2"}, {"C", "early"}};
  plan.ranks[0].env.push_back({"C", "late"});
  run(plan);
  ::unsetenv("LATHE_ADMIN_PASSWORD");
  const std::string text = log(plan);
  EXPECT_THAT(text, HasSubstr("A=1\nB=x y; $(touch /tmp/z) \"'\n"));
  EXPECT_THAT(text, HasSubstr("C=late\n"));
  EXPECT_THAT(text, HasSubstr("RANK=0\n"));
  EXPECT_THAT(text, HasSubstr("CUDA_VISIBLE_DEVICES=\n"));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
  EXPECT_THAT(text, Not(HasSubstr("early")));
}

TEST_P(EngineContract, MountsWhatThePlanSaysAsItSays) {
  const fs::path mine = user_folder("alice"), other = user_folder("bob");
  std::ofstream(mine / "data.txt") << "hello";
  std::ofstream(other / "secret.txt") << "bob's";
  fs::create_directory(mine / "out");
  hand_over(mine / "out");
  auto plan = this->plan(
      "cat /workspace/input/data.txt; echo; echo made > /workspace/output/new; "
      "touch /workspace/input/x || echo read-only; touch /config.json || echo read-only; cat /config.json; "
      "pwd; ls /workspace");
  plan.work_dir = "/workspace/output";
  plan.mounts = {{base_ / "users", "alice", "/workspace/input", false},
                 {mine, "out", "/workspace/output", true},
                 {mine, "data.txt", "/config.json", false}};
  const auto status = run(plan);
  EXPECT_TRUE(status.verdict().success()) << status.verdict().message.en << log(plan);
  EXPECT_THAT(log(plan), HasSubstr("hello\n"));
  EXPECT_THAT(log(plan), EndsWith("read-only\nhello/workspace/output\ninput\noutput\n"));
  EXPECT_EQ(slurp(mine / "out" / "new"), "made\n");
  struct stat info {};
  ASSERT_EQ(::stat((mine / "out" / "new").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, ::geteuid() == 0 ? kJobUid : ::geteuid());
}

TEST_P(EngineContract, MountsNothingOutsideItsRoot) {
  const fs::path mine = user_folder("alice");
  user_folder("bob");
  fs::create_symlink(base_ / "users" / "bob", mine / "link");
  fs::create_symlink("../bob", mine / "relative");
  fs::create_symlink("inside", mine / "fine");
  fs::create_directory(mine / "inside");
  for (const char* path : {"link", "relative"}) {
    auto plan = this->plan("ls /data");
    plan.mounts = {{mine, path, "/data", true}};
    const auto status = run(plan);
    EXPECT_EQ(status.verdict().cause, EndCause::launch_failed) << path;
    EXPECT_THAT(status.verdict().message.en, HasSubstr("symbolic link"));
  }
  auto plan = this->plan("ls /data");
  plan.mounts = {{mine, "fine", "/data", true}};
  EXPECT_TRUE(run(plan).verdict().success());
}

TEST_P(EngineContract, ShowsNothingOfTheServerOrOthers) {
  if (!engine_->capabilities().isolates_files) GTEST_SKIP();
  user_folder("bob");
  std::ofstream(base_ / "secret") << "s";
  auto plan = this->plan(
      fmt::format("ls {0} 2>/dev/null && echo leak; ls {0}/users/bob 2>/dev/null && echo leak; ls /root "
                  "2>/dev/null && echo leak; "
                  "cat /etc/shadow 2>/dev/null && echo leak; ls -d /proc/{1} 2>/dev/null && echo leak; "
                  "kill -0 {1} 2>/dev/null && echo leak; "
                  "touch /x 2>/dev/null && echo leak; touch /usr/x 2>/dev/null && echo leak; touch /etc/x "
                  "2>/dev/null && echo leak;"
                  "touch /dev/x 2>/dev/null && echo leak; mount -t tmpfs none /tmp 2>/dev/null && echo leak; "
                  "unshare -U true 2>/dev/null && echo leak; cat /proc/1/environ 2>/dev/null && echo leak; "
                  "ls /proc/1/fd 2>/dev/null && echo leak; kill -9 1; touch /tmp/fine && echo done",
                  base_.string(), ::getpid()));
  const auto status = run(plan);
  EXPECT_TRUE(status.verdict().success()) << status.verdict().message.en;
  EXPECT_EQ(log(plan), "done\n");
}

TEST_P(EngineContract, HasNoRightsItDoesNotNeed) {
  auto plan = this->plan(
      "id -u; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls /proc/self/fd; ulimit -c");
  run(plan);
  const std::string text = log(plan);
  EXPECT_THAT(text, HasSubstr(fmt::format("{}\n", plan.uid)));
  EXPECT_THAT(text, HasSubstr("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000"));
  EXPECT_THAT(text, HasSubstr("NoNewPrivs:\t1\nSeccomp:\t2\n"));
  EXPECT_THAT(text, EndsWith("0\n1\n2\n3\n0\n"));  // 3 is ls's own
}

TEST_P(EngineContract, HidesTheNetworkWhereAsked) {
  if (!engine_->capabilities().isolates_network) GTEST_SKIP();
  auto plan = this->plan("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", 2);
  plan.network = Network::none;
  run(plan);
  EXPECT_EQ(log(plan, 0), "lo\n");
  EXPECT_EQ(log(plan, 1), "lo\n");
}

TEST_P(EngineContract, TellsOutOfMemory) {
  if (!engine_->capabilities().limits_memory) GTEST_SKIP();
  auto plan = this->plan("head -c 300000000 /dev/zero | tail");
  plan.ranks[0].resources.memory_bytes = 64 << 20;
  const auto status = run(plan);
  EXPECT_EQ(status.verdict().cause, EndCause::out_of_memory) << status.verdict().message.en;
  EXPECT_GT(status.verdict().memory_peak_bytes, 50 << 20);
  EXPECT_LE(status.verdict().memory_peak_bytes, 64 << 20);

  auto shared = this->plan("head -c 300000000 /dev/zero 2>/dev/null >/dev/shm/x; wc -c </dev/shm/x");
  shared.ranks[0].resources = {.memory_bytes = 64 << 20, .shm_bytes = 16 << 20};
  EXPECT_TRUE(run(shared).verdict().success());
  EXPECT_EQ(log(shared), fmt::format("{}\n", 16 << 20));
}

TEST_P(EngineContract, LimitsProcesses) {
  if (!engine_->capabilities().limits_pids) GTEST_SKIP();
  auto plan = this->plan("bomb() { bomb | bomb & }; bomb; sleep 0.2; echo survived");
  plan.ranks[0].resources.pids = 30;
  const auto status = run(plan);
  EXPECT_THAT(log(plan), ::testing::ContainsRegex("fork"));
  EXPECT_EQ(status.state, RankState::ended);
}

TEST_P(EngineContract, LimitsCpuTime) {
  if (!engine_->capabilities().limits_cpu) GTEST_SKIP();
  auto plan = this->plan("while :; do :; done");
  plan.ranks[0].resources.cpus = 0.1;
  plan.time_limit = 1s;
  plan.stop_grace = 0s;
  const auto status = run(plan);
  EXPECT_EQ(status.verdict().cause, EndCause::time_limit);
  EXPECT_GT(status.verdict().cpu_seconds, 0.0);
  EXPECT_LT(status.verdict().cpu_seconds, 0.4);
}

TEST_P(EngineContract, EndsAtTheTimeLimit) {
  auto plan = this->plan("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done");
  plan.time_limit = 300ms;
  const auto status = run(plan);
  EXPECT_EQ(status.verdict().cause, EndCause::time_limit);
  EXPECT_EQ(status.verdict().exit_code, 3);
  EXPECT_THAT(log(plan), EndsWith("bye\n"));
}

TEST_P(EngineContract, StopsPolitelyThenForGood) {
  auto polite = plan("trap 'echo saving; exit 0' TERM; echo up; while :; do sleep 0.01; done");
  ASSERT_TRUE(engine_->start(polite).ok());
  wait_for_log(polite, "up");
  ASSERT_TRUE(engine_->stop(polite.run_id).ok());
  auto status = wait_for_end(polite.run_id);
  EXPECT_EQ(status.verdict().cause, EndCause::stopped);
  EXPECT_EQ(status.verdict().exit_code, 0);
  EXPECT_THAT(log(polite), EndsWith("saving\n"));

  auto deaf = plan("trap '' TERM; (trap '' TERM; sleep 1000) & echo up; while :; do sleep 0.01; done");
  ASSERT_TRUE(engine_->start(deaf).ok());
  wait_for_log(deaf, "up");
  ASSERT_TRUE(engine_->stop(deaf.run_id, 50ms).ok());
  status = wait_for_end(deaf.run_id);
  EXPECT_EQ(status.verdict().cause, EndCause::stopped);
  EXPECT_EQ(status.verdict().signal, SIGKILL);
  EXPECT_TRUE(engine_->stop(deaf.run_id).ok());  // again: no error, no change
  EXPECT_EQ(wait_for_end(deaf.run_id).verdict().signal, SIGKILL);
}

TEST_P(EngineContract, GivesChildrenTheirGraceWhenTheShellGoesFirst) {
  auto plan =
      this->plan("(trap 'sleep 0.1; echo saved; exit' TERM; echo up; while :; do sleep 0.01; done) & wait");
  ASSERT_TRUE(engine_->start(plan).ok());
  wait_for_log(plan, "up");
  ASSERT_TRUE(engine_->stop(plan.run_id).ok());
  EXPECT_EQ(wait_for_end(plan.run_id).verdict().cause, EndCause::stopped);
  EXPECT_THAT(log(plan), EndsWith("saved\n"));
}

TEST_P(EngineContract, LeavesNoProcessBehind) {
  auto plan = this->plan("setsid sleep 1000 & (sleep 1000 &) ; echo started");
  run(plan);  // ends although the background processes hold its output
  EXPECT_EQ(log(plan), "started\n");
}

TEST_P(EngineContract, RunsAllRanksTogether) {
  const fs::path shared = user_folder("shared");
  auto plan = this->plan(
      "touch /shared/$RANK; while [ $(ls /shared | wc -l) -lt 4 ]; do sleep 0.01; done; echo rank $RANK", 4);
  plan.mounts = {{shared, "", "/shared", true}};
  const auto status = run(plan);
  EXPECT_TRUE(status.verdict().success());
  ASSERT_EQ(status.ranks.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(log(plan, i), fmt::format("rank {}\n", i));
}

TEST_P(EngineContract, StopsTheOtherRanksWhenOneFails) {
  auto plan = this->plan(
      "if [ $RANK = 2 ]; then sleep 0.05; exit 9; fi; trap 'exit 0' TERM; while :; do sleep 0.01; done", 3);
  plan.gang_grace = 20ms;
  const auto status = run(plan);
  EXPECT_EQ(status.verdict_rank, 2U);
  EXPECT_EQ(status.verdict().exit_code, 9);
  EXPECT_EQ(status.ranks[0].end->cause, EndCause::sibling_failed);
  EXPECT_THAT(status.ranks[1].end->message.en, HasSubstr("rank 2 failed"));
}

TEST_P(EngineContract, StartsAllRanksOrNone) {
  const fs::path shared = user_folder("shared");
  auto plan = this->plan("touch /shared/$RANK", 3);
  plan.mounts = {{shared, "", "/shared", true}};
  plan.ranks[1].resources.shm_bytes = 1;
  plan.ranks[1].resources.memory_bytes = 4096;  // too little to set the rank up in
  if (!engine_->capabilities().limits_memory) GTEST_SKIP();
  const auto status = run(plan);
  EXPECT_EQ(status.verdict_rank, 1U);
  EXPECT_EQ(status.verdict().cause, EndCause::launch_failed);
  EXPECT_EQ(status.ranks[0].end->cause, EndCause::sibling_failed);
  EXPECT_TRUE(fs::is_empty(shared));
}

TEST_P(EngineContract, StartsOnceHoweverOftenAsked) {
  const fs::path shared = user_folder("shared");
  auto plan = this->plan("echo once >> /shared/count; sleep 0.1");
  plan.mounts = {{shared, "", "/shared", true}};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { EXPECT_TRUE(engine_->start(plan).ok()); });
  for (auto& thread : threads) thread.join();
  wait_for_end(plan.run_id);
  EXPECT_TRUE(engine_->start(plan).ok());
  EXPECT_EQ(wait_for_end(plan.run_id).verdict().exit_code, 0);
  EXPECT_EQ(slurp(shared / "count"), "once\n");
}

TEST_P(EngineContract, DoesNotRunWhatIsStoppedFirst) {
  const fs::path shared = user_folder("shared");
  for (int i = 0; i < 10; ++i) {
    auto plan = this->plan("touch /shared/ran; sleep 1000");
    plan.mounts = {{shared, "", "/shared", true}};
    ASSERT_TRUE(engine_->start(plan).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(2 * i));
    ASSERT_TRUE(engine_->stop(plan.run_id, 0ms).ok());
    EXPECT_EQ(wait_for_end(plan.run_id).verdict().cause, EndCause::stopped);
  }
}

TEST_P(EngineContract, KnowsItsRunsAfterARestart) {
  auto plan = this->plan("echo up; while [ ! -e /shared/go ]; do sleep 0.01; done; exit 5");
  const fs::path shared = user_folder("shared");
  plan.mounts = {{shared, "", "/shared", true}};
  ASSERT_TRUE(engine_->start(plan).ok());
  wait_for_log(plan, "up");
  restart();
  EXPECT_THAT(*engine_->list(), ::testing::ElementsAre(plan.run_id));
  EXPECT_EQ(engine_->inspect(plan.run_id)->state, RankState::running);
  EXPECT_EQ(engine_->remove(plan.run_id).error().code, Code::failed_precondition);
  std::ofstream(shared / "go").flush();
  EXPECT_EQ(wait_for_end(plan.run_id).verdict().exit_code, 5);
  restart();
  EXPECT_EQ(engine_->inspect(plan.run_id)->verdict().exit_code, 5);
  EXPECT_TRUE(engine_->start(plan).ok());
  EXPECT_EQ(engine_->inspect(plan.run_id)->verdict().exit_code, 5);
  EXPECT_TRUE(engine_->remove(plan.run_id).ok());
  EXPECT_TRUE(engine_->remove(plan.run_id).ok());
  EXPECT_TRUE(engine_->list()->empty());
  EXPECT_EQ(engine_->inspect(plan.run_id).error().code, Code::not_found);
  EXPECT_EQ(log(plan), "up\n");
}

TEST_P(EngineContract, TellsUsage) {
  if (!engine_->capabilities().limits_memory) GTEST_SKIP();
  auto plan = this->plan("head -c 20000000 /dev/zero > /dev/shm/x; echo up; while :; do sleep 0.01; done");
  plan.ranks[0].resources.memory_bytes = 100 << 20;
  ASSERT_TRUE(engine_->start(plan).ok());
  wait_for_log(plan, "up");
  const auto usage = engine_->usage(plan.run_id);
  ASSERT_TRUE(usage.ok());
  EXPECT_GT(usage->memory_bytes, 20'000'000);
  EXPECT_GT(usage->cpu_seconds, 0.0);
  ASSERT_TRUE(engine_->stop(plan.run_id, 0ms).ok());
  wait_for_end(plan.run_id);
  EXPECT_GT(engine_->usage(plan.run_id)->memory_peak_bytes, 20'000'000);
}

INSTANTIATE_TEST_SUITE_P(
    Engines, EngineContract,
    ::testing::Values(EngineKind{"process", make_process_engine, "host"},
                      EngineKind{"docker", make_docker_engine<testing::TestDaemon::Kind::docker>,
                                 testing::BusyboxImage::kName},
                      EngineKind{"podman", make_docker_engine<testing::TestDaemon::Kind::podman>,
                                 testing::BusyboxImage::kName}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace lathe::engines
