#include <gtest/gtest.h>

#include <fstream>

#include "jobs/testing.h"

namespace lathe::jobs {
namespace {

using engines::EndCause;
using testing::eventually;
using testing::JobsPlatform;

std::string run_of(const std::string& id, int attempt = 1) {
  return "job-" + id + "-" + std::to_string(attempt);
}

Json resource(int cpu, int numbers = 1) {
  return boost::json::array{{{"cpuNumber", cpu}, {"memory", 1}, {"numbers", numbers}}};
}

class ReconcilerTest : public ::testing::Test {
 protected:
  std::string events(const std::string& id) {
    std::string out;
    const auto reply = platform_.send("GET", "/api/v1/jobs/" + id + "/events", "1");
    for (const auto& each : reply.json.at("items").as_array())
      out += std::string(each.at("state").as_string()) + " ";
    return out;
  }
  JobsPlatform platform_;
};

TEST_F(ReconcilerTest, AJobLivesFromCreationToItsEnd) {
  const auto id = platform_.create("2", {{"name", "first"}});
  ASSERT_TRUE(platform_.becomes(id, "running"));
  EXPECT_EQ(platform_.engine().plan(run_of(id)).argv.at(2), "run \"$@\"");
  platform_.engine().end(run_of(id), EndCause::exited, 0);
  ASSERT_TRUE(platform_.becomes(id, "succeeded"));
  EXPECT_EQ(platform_.reason(id), "Completed");
  EXPECT_EQ(platform_.job(id).at("progress").as_double(), 1);
  EXPECT_EQ(events(id), "starting running succeeded ");
  EXPECT_TRUE(eventually([&] { return !platform_.engine().knows(run_of(id)); }))
      << "the engine may forget it";
}

TEST_F(ReconcilerTest, AFailureKeepsTheLastLinesOfItsLog) {
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(id, "running"));
  const auto plan = platform_.engine().plan(run_of(id));
  std::ofstream(engines::rank_log_path(plan, 0)) << "one\nTraceback\nValueError: no\n";
  platform_.engine().end(run_of(id), EndCause::exited, 7);
  ASSERT_TRUE(platform_.becomes(id, "failed"));
  EXPECT_EQ(platform_.reason(id), "ExitCode 7");
  const auto all = platform_.send("GET", "/api/v1/jobs/" + id + "/events", "2").json.at("items").as_array();
  EXPECT_NE(std::string(all.back().at("log").as_string()).find("ValueError: no"), std::string::npos);
}

TEST_F(ReconcilerTest, WhoDoesNotFitWaitsAndStartsWhenThereIsRoom) {
  const auto big = platform_.create("2", {{"resource", resource(6)}});
  ASSERT_TRUE(platform_.becomes(big, "running"));
  const auto next = platform_.create("2", {{"resource", resource(6)}});
  ASSERT_TRUE(platform_.waits_for(next, "WaitingForCapacity"));
  platform_.engine().end(run_of(big), EndCause::exited, 0);
  ASSERT_TRUE(platform_.becomes(next, "running"));
}

TEST_F(ReconcilerTest, AQuotaIsAReasonToWaitAndItsLiftingAReasonToStart) {
  ASSERT_EQ(platform_.send("PUT", "/api/v1/users/2/quota", "1", {{"cpu", 4}, {"jobs", 1}}).status, 200);
  const auto first = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(first, "running"));
  const auto second = platform_.create("2", {});
  ASSERT_TRUE(platform_.waits_for(second, "WaitingForQuota"));
  const auto too_big = platform_.send("POST", "/kernel/trainOperator/createTask", "2",
                                      {{"command", "x"}, {"resource", resource(5)}});
  EXPECT_EQ(too_big.status, 422) << "more than the whole quota never starts";
  const auto left =
      platform_.send("POST", "/api/system/config/getRemainResource", "2", {{"userId", "2"}}).json;
  EXPECT_EQ(left.at("result").at("remainJobNum").as_int64(), 0);
  EXPECT_EQ(left.at("result").at("remainCpu").as_int64(), 3);
  ASSERT_EQ(platform_.send("DELETE", "/api/v1/users/2/quota", "1").status, 204);
  platform_.jobs().wake();
  ASSERT_TRUE(platform_.becomes(second, "running"));
}

TEST_F(ReconcilerTest, WhatCanNeverFitIsRefusedAtTheDoor) {
  const auto reply = platform_.send("POST", "/kernel/trainOperator/createTask", "2",
                                    {{"command", "x"}, {"resource", resource(9)}});
  EXPECT_EQ(reply.status, 422) << reply.body;
  EXPECT_EQ(reply.json.at("success"), false);
  const auto gpus = platform_.send(
      "POST", "/kernel/trainOperator/createTask", "2",
      {{"command", "x"}, {"resource", boost::json::array{{{"gpuResource", {{"gpuNum", 1}}}}}}});
  EXPECT_EQ(gpus.status, 422) << "there are no GPUs here";
}

TEST_F(ReconcilerTest, StoppingTakesEffectInEveryState) {
  const auto running = platform_.create("2", {{"resource", resource(8)}});
  ASSERT_TRUE(platform_.becomes(running, "running"));
  const auto waiting = platform_.create("2", {});
  ASSERT_TRUE(platform_.waits_for(waiting, "WaitingForCapacity"));
  EXPECT_EQ(platform_.send("POST", "/api/v1/jobs/" + waiting + "/stop", "2").json.at("state").as_string(),
            "cancelled");
  EXPECT_EQ(platform_.send("POST", "/api/v1/jobs/" + running + "/stop", "2").status, 200);
  ASSERT_TRUE(platform_.becomes(running, "cancelled"));
  EXPECT_EQ(platform_.reason(running), "StoppedByUser");
  EXPECT_EQ(platform_.send("POST", "/api/v1/jobs/" + running + "/stop", "2").status, 409);
  EXPECT_EQ(platform_.engine().times_started(run_of(waiting)), 0);

  platform_.engine().wait_in_starting();
  const auto starting = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(starting, "starting"));
  platform_.send("POST", "/api/v1/jobs/" + starting + "/stop", "2");
  ASSERT_TRUE(platform_.becomes(starting, "cancelled"));
}

TEST_F(ReconcilerTest, ARetryIsANewAttemptOfTheSameJob) {
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(id, "running"));
  EXPECT_EQ(platform_.send("POST", "/api/v1/jobs/" + id + "/retry", "2").status, 409) << "it is not over";
  platform_.engine().end(run_of(id), EndCause::exited, 1);
  ASSERT_TRUE(platform_.becomes(id, "failed"));
  const auto output = platform_.base().host("users/2/private");
  ASSERT_EQ(platform_.send("POST", "/api/v1/jobs/" + id + "/retry", "2").status, 200);
  ASSERT_TRUE(platform_.becomes(id, "running"));
  EXPECT_EQ(platform_.job(id).at("attempt").as_int64(), 2);
  const auto plan = platform_.engine().plan(run_of(id, 2));
  EXPECT_TRUE(
      std::any_of(plan.env.begin(), plan.env.end(), [](const auto& each) { return each.name == "RESUME"; }));
}

TEST_F(ReconcilerTest, ALostMachineMeansAnotherAttemptButNotForEver) {
  const auto id = platform_.create("2", {});
  for (int attempt = 1; attempt <= kMaxRestarts + 1; ++attempt) {
    ASSERT_TRUE(eventually([&] { return platform_.engine().knows(run_of(id, attempt)); })) << attempt;
    ASSERT_TRUE(platform_.becomes(id, "running"));
    platform_.engine().end(run_of(id, attempt), EndCause::lost);
    if (attempt > kMaxRestarts) break;
    ASSERT_TRUE(eventually([&] {
      platform_.jobs().wake();  // instead of waiting for the pause to be noticed by the tick
      return platform_.engine().knows(run_of(id, attempt + 1));
    }));
  }
  ASSERT_TRUE(platform_.becomes(id, "failed"));
  EXPECT_EQ(platform_.reason(id), "NodeFailure");
}

TEST_F(ReconcilerTest, AJobThatWaitsForItsEngineIsToldWhatTheEngineLacks) {
  platform_.engine().set_unusable("no root of its own");
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(platform_.waits_for(id, "WaitingForEngine"));
  const auto found = platform_.job(id);
  EXPECT_NE(std::string(found.at("reason").at("message").as_string()).find("no root of its own"),
            std::string::npos);
}

TEST_F(ReconcilerTest, AnEngineThatRefusesFailsTheJobInWords) {
  platform_.engine().set_refusal("no MPS here");
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(id, "failed"));
  EXPECT_EQ(platform_.reason(id), "EngineError");
  const auto found = platform_.job(id);
  EXPECT_NE(std::string(found.at("reason").at("message").as_string()).find("no MPS here"), std::string::npos);
}

TEST_F(ReconcilerTest, AnEngineThatIsAwayIsAskedAgain) {
  platform_.engine().set_down(true);
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(eventually([&] { return platform_.engine().calls() > 0; }));
  EXPECT_EQ(platform_.state(id), "starting");
  platform_.engine().set_down(false);
  ASSERT_TRUE(platform_.becomes(id, "running"));
  EXPECT_EQ(platform_.engine().times_started(run_of(id)), 1);
}

TEST_F(ReconcilerTest, ARestartAdoptsWhatRunsAndNothingRunsTwice) {
  const auto id = platform_.create("2", {{"resource", resource(8)}});
  const auto waiting = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(id, "running"));
  platform_.restart();
  ASSERT_TRUE(platform_.waits_for(waiting, "WaitingForCapacity"));
  EXPECT_EQ(platform_.state(id), "running");
  EXPECT_EQ(platform_.engine().times_started(run_of(id)), 1);
  // It ends while no server runs.
  platform_.down();
  platform_.engine().end(run_of(id), EndCause::exited, 3);
  platform_.up();
  ASSERT_TRUE(platform_.becomes(id, "failed"));
  EXPECT_EQ(platform_.reason(id), "ExitCode 3");
  ASSERT_TRUE(platform_.becomes(waiting, "running"));
}

// Every moment at which the server can be killed, as it looks at the next start.
TEST_F(ReconcilerTest, WhatWasHalfDoneIsFinished) {
  Uuid7Source ids(platform_.base().clock());
  Lifecycle lifecycle(ids, platform_.base().clock());
  auto& engine = platform_.engine();
  const auto blocker = platform_.create("2", {{"resource", resource(8)}});
  ASSERT_TRUE(platform_.becomes(blocker, "running"));
  const auto intended = platform_.create("2", {}), told = platform_.create("2", {}),
             stopped_early = platform_.create("2", {}), ended = platform_.create("2", {}),
             written = platform_.create("2", {});
  platform_.down();
  const auto begin = [&](const std::string& id) {
    ASSERT_TRUE(platform_.base()
                    .db()
                    .write([&](db::Transaction& tx) -> Result<void> {
                      lifecycle.begin(tx, id, "process", {.gpus = {}, .port = 20000});
                      return {};
                    })
                    .ok());
  };
  const auto start = [&](const std::string& id) {
    engines::LaunchPlan plan{.run_id = run_of(id), .argv = {"true"}, .ranks = {{}}, .log_dir = "/nowhere"};
    ASSERT_TRUE(engine.start(plan).ok());
  };
  for (const auto& id : {intended, told, stopped_early, ended, written}) begin(id);
  start(told);  // killed before it was noted that it runs
  start(ended);
  engine.end(run_of(ended), EndCause::exited, 4);  // killed before its end was noted
  start(written);
  engine.end(run_of(written), EndCause::exited, 0);
  const auto done = platform_.base().db().write([&](db::Transaction& tx) -> Result<void> {
    TRY(lifecycle.stop(tx, stopped_early));  // killed before the engine was told anything
    lifecycle.finish(tx, written,
                     {.cause = {.reason = Reason::completed}, .at = platform_.base().clock().now()});
    return {};
  });
  ASSERT_TRUE(done.ok());
  // A run that the database never heard of: an old snapshot was put back, say.
  engines::LaunchPlan stray{.run_id = run_of("0123"), .argv = {"true"}, .ranks = {{}}, .log_dir = "/nowhere"};
  ASSERT_TRUE(engine.start(stray).ok());
  engines::LaunchPlan others{.run_id = "replica-7", .argv = {"true"}, .ranks = {{}}, .log_dir = "/nowhere"};
  ASSERT_TRUE(engine.start(others).ok());
  platform_.up();

  EXPECT_TRUE(platform_.becomes(intended, "running"));
  EXPECT_TRUE(platform_.becomes(told, "running"));
  EXPECT_TRUE(platform_.becomes(stopped_early, "cancelled"));
  EXPECT_TRUE(platform_.becomes(ended, "failed"));
  EXPECT_EQ(platform_.reason(ended), "ExitCode 4");
  EXPECT_EQ(platform_.state(written), "succeeded");
  EXPECT_TRUE(eventually([&] { return !engine.knows(run_of(written)) && !engine.knows(run_of("0123")); }));
  EXPECT_TRUE(engine.knows("replica-7")) << "what belongs to others is let alone";
  EXPECT_EQ(engine.times_started(run_of(intended)), 1);
  EXPECT_EQ(engine.times_started(run_of(told)), 1);
  EXPECT_EQ(engine.times_started(run_of(stopped_early)), 0);
}

TEST_F(ReconcilerTest, OnlyAnEndedJobIsDeletedAndNothingOfItStays) {
  const auto id = platform_.create("2", {});
  ASSERT_TRUE(platform_.becomes(id, "running"));
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/jobs/" + id, "2").status, 409);
  platform_.engine().end(run_of(id), EndCause::exited, 0);
  ASSERT_TRUE(platform_.becomes(id, "succeeded"));
  const std::string folder = platform_.base().host("jobs/" + id);
  EXPECT_TRUE(std::filesystem::exists(folder));
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/jobs/" + id, "3").status, 404) << "somebody else's";
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/jobs/" + id, "2").status, 204);
  EXPECT_FALSE(std::filesystem::exists(folder));
  EXPECT_EQ(platform_.send("GET", "/api/v1/jobs/" + id, "2").status, 404);
}

TEST(ReconcilerGpus, TwoGroupsNeverGetTheSameDevice) {
  constexpr std::int64_t kGb = 1LL << 30;
  JobsPlatform platform({{.index = 0, .uuid = "GPU-0", .model = "x", .memory_bytes = 80 * kGb},
                         {.index = 1, .uuid = "GPU-1", .model = "x", .memory_bytes = 80 * kGb}});
  const auto made = platform.send(
      "POST", "/api/v1/resource-groups", "1",
      {{"name", "second"}, {"engine", "process"}, {"capacity", {{"cpu", 4}, {"memoryGb", 4}, {"gpu", 2}}}});
  ASSERT_EQ(made.status, 201) << made.body;
  const Json gpus = boost::json::array{{{"cpuNumber", 1}, {"gpuResource", {{"gpuNum", 1}}}}};
  const auto one = platform.create("2", {{"resource", gpus}}),
             two = platform.create("2", {{"resource", gpus}, {"zoneName", "second"}});
  ASSERT_TRUE(platform.becomes(one, "running"));
  ASSERT_TRUE(platform.becomes(two, "running"));
  const auto three = platform.create("2", {{"resource", gpus}});
  EXPECT_TRUE(platform.waits_for(three, "WaitingForCapacity"));
  const auto device = [&](const std::string& id) {
    return platform.engine().plan(run_of(id)).ranks.at(0).resources.gpus.at(0).uuid;
  };
  EXPECT_NE(device(one), device(two));
}

}  // namespace
}  // namespace lathe::jobs
