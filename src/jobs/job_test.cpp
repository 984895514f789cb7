#include "jobs/job.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/json.h"

namespace lathe {
namespace {

// One row a state, one column a state, in the order of the enum: the whole transition function.
TEST(JobState, MovesExactlyAsDrawn) {
  const std::string expected[] = {
      //           q s r t S F C
      /*queued*/ ".x...xx",
      /*starting*/ "x.xxxx.",
      /*running*/ "x..xxx.",
      /*stopping*/ "....xxx",
      /*succeeded*/ "x......",
      /*failed*/ "x......",
      /*cancelled*/ "x......",
  };
  for (const JobState from : kJobStates)
    for (const JobState to : kJobStates)
      EXPECT_EQ(may_move(from, to),
                expected[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)] == 'x')
          << name(from) << " -> " << name(to);
}

TEST(JobState, HasOneNameAndOneDocumentedStatus) {
  const std::string expected[] = {"Pending",   "Pending", "Running", "Running",
                                  "Succeeded", "Failed",  "Stopped"};
  for (const JobState state : kJobStates) {
    EXPECT_EQ(job_state(name(state)), state);
    EXPECT_EQ(documented_status(state), expected[static_cast<std::size_t>(state)]);
    const auto back = states_of(documented_status(state));
    EXPECT_NE(std::find(back.begin(), back.end(), state), back.end());
    EXPECT_FALSE(is_ended(state) && is_active(state));
  }
  EXPECT_EQ(states_of("running").size(), 2u);
  EXPECT_TRUE(states_of("Sleeping").empty());
  EXPECT_TRUE(states_of("").empty());
  for (const JobKind kind : kJobKinds) EXPECT_EQ(job_kind(name(kind)), kind);
  EXPECT_EQ(job_kind("cooking"), std::nullopt);
}

// The whole table reason → class, status, resting state.
TEST(Reason, TableIsWhole) {
  struct Row {
    Reason reason;
    const char* name;
    ReasonClass kind;
    const char* status;
    JobState rests;
  };
  using C = ReasonClass;
  using S = JobState;
  const Row expected[] = {
      {Reason::none, "", C::none, "", S::queued},
      {Reason::waiting_for_turn, "WaitingForTurn", C::waiting, "Pending", S::queued},
      {Reason::waiting_for_capacity, "WaitingForCapacity", C::waiting, "Pending", S::queued},
      {Reason::waiting_for_quota, "WaitingForQuota", C::waiting, "Pending", S::queued},
      {Reason::quota_not_yet_valid, "QuotaNotYetValid", C::waiting, "Pending", S::queued},
      {Reason::quota_expired, "QuotaExpired", C::waiting, "Pending", S::queued},
      {Reason::waiting_for_image, "WaitingForImage", C::waiting, "Pending", S::queued},
      {Reason::waiting_for_model, "WaitingForModel", C::waiting, "Pending", S::queued},
      {Reason::waiting_for_engine, "WaitingForEngine", C::waiting, "Pending", S::queued},
      {Reason::waiting_to_restart, "WaitingToRestart", C::waiting, "Pending", S::queued},
      {Reason::exceeds_max_quota, "ExceedsMaxQuota", C::refused, "Failed", S::failed},
      {Reason::exceeds_group, "ExceedsGroup", C::refused, "Failed", S::failed},
      {Reason::group_unavailable, "GroupUnavailable", C::refused, "Failed", S::failed},
      {Reason::input_unavailable, "InputUnavailable", C::refused, "Failed", S::failed},
      {Reason::completed, "Completed", C::ended, "Succeeded", S::succeeded},
      {Reason::exit_code, "ExitCode", C::ended, "Failed", S::failed},
      {Reason::signal, "Signal", C::ended, "Failed", S::failed},
      {Reason::out_of_memory, "OutOfMemory", C::ended, "Failed", S::failed},
      {Reason::time_limit, "TimeLimit", C::ended, "Failed", S::failed},
      {Reason::stopped_by_user, "StoppedByUser", C::ended, "Stopped", S::cancelled},
      {Reason::node_failure, "NodeFailure", C::ended, "Failed", S::failed},
      {Reason::engine_error, "EngineError", C::ended, "Failed", S::failed},
      {Reason::evicted, "Evicted", C::ended, "Failed", S::failed},
  };
  ASSERT_EQ(std::size(expected), kReasonCount);
  std::set<std::string_view> names;
  for (const auto& row : expected) {
    const ReasonInfo& got = info(row.reason);
    EXPECT_EQ(got.reason, row.reason);
    EXPECT_EQ(got.name, row.name);
    EXPECT_EQ(got.kind, row.kind) << row.name;
    EXPECT_EQ(got.status, row.status) << row.name;
    EXPECT_EQ(resting_state(row.reason), row.rests) << row.name;
    EXPECT_EQ(reason_named(row.name), row.reason);
    EXPECT_TRUE(names.insert(got.name).second) << row.name;
    EXPECT_EQ(row.reason == Reason::none, got.words.zh.empty()) << row.name;
    EXPECT_EQ(row.reason == Reason::none, got.words.en.empty()) << row.name;
    if (row.kind == C::none) continue;
    EXPECT_EQ(documented_status(row.rests), got.status) << row.name;
  }
  EXPECT_EQ(reason_named("NoSuchReason"), std::nullopt);
}

TEST(Cause, IsToldInWords) {
  EXPECT_EQ(label({.reason = Reason::exit_code, .number = 7}), "ExitCode 7");
  EXPECT_EQ(label({.reason = Reason::out_of_memory}), "OutOfMemory");
  const Text text =
      describe({.reason = Reason::signal, .number = 11, .rank = 1, .detail = {"段错误", "segfault"}});
  EXPECT_EQ(text.en, "the program was killed by a signal (11) on rank 1: segfault");
  EXPECT_EQ(text.zh, "程序被信号终止 (11)（节点 1）：段错误");
}

TEST(Ranks, MastersComeFirst) {
  const std::vector<RankGroup> groups{{NodeRole::worker, 2, {.cpu = 1}}, {NodeRole::master, 1, {.cpu = 4}}};
  const auto ranks = expand_ranks(groups);
  ASSERT_EQ(ranks.size(), 3u);
  EXPECT_EQ(ranks[0].role, NodeRole::master);
  EXPECT_EQ(ranks[0].need.cpu, 4);
  EXPECT_EQ(ranks[2].rank, 2);
  EXPECT_EQ(ranks[2].index, 1);
  EXPECT_EQ(total_of(groups).cpu, 6);
  EXPECT_EQ(total_of(groups).memory_gb, 3);
}

TEST(Ranks, EveryKindOfGpuIsCountedApart) {
  ResourceRequest need;
  need.gpu.count = 2;
  EXPECT_EQ(total_of(need, 3).gpu, 6);
  need.gpu.share = GpuShare::vgpu;
  EXPECT_EQ(total_of(need, 3), (ResourceTotal{3, 3, 0, 6, 0}));
  need.gpu.share = GpuShare::mig;
  EXPECT_EQ(total_of(need).mig, 2);
}

TEST(JobSpec, SurvivesBeingStored) {
  JobSpec spec;
  spec.kind = JobKind::evaluation;
  spec.command = "python3 run.py";
  spec.environment = {{"A", "1\n2"}};
  spec.output = {JobDirectory::Source::user_root, "3", "out/日本"};
  spec.groups = {
      {NodeRole::master, 2, {.cpu = 3, .memory_gb = 4, .gpu = {.count = 1, .share = GpuShare::vgpu}}}};
  spec.urgent = true;
  const auto back = json::parse_as<JobSpec>(json::write(spec));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->kind, JobKind::evaluation);
  EXPECT_EQ(back->output, spec.output);
  EXPECT_EQ(back->groups, spec.groups);
  EXPECT_EQ(back->environment[0].value, "1\n2");
  EXPECT_TRUE(back->urgent);
}

}  // namespace
}  // namespace lathe
