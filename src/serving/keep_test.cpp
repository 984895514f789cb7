#include "serving/keep.h"

#include <gtest/gtest.h>

namespace lathe::serving {
namespace {

using std::chrono::seconds;
Time at(int s) {
  return Time{seconds{s}};
}

ReplicaView live(std::string id, ReplicaState state, int created) {
  return {.id = std::move(id),
          .state = state,
          .failed = false,
          .created_at = at(created),
          .ready_at = {},
          .ended_at = {}};
}
ReplicaView failed(int created, int ended, std::optional<int> ready = {}) {
  return {.id = "f",
          .state = ReplicaState::ended,
          .failed = true,
          .created_at = at(created),
          .ready_at = ready ? std::optional(at(*ready)) : std::nullopt,
          .ended_at = at(ended)};
}

TEST(Keep, LaunchesWhatIsMissing) {
  EXPECT_EQ(keep(3, {live("a", ReplicaState::ready, 1)}, at(9)).launch, 2);
  EXPECT_EQ(keep(0, {}, at(9)).launch, 0);
}

TEST(Keep, OneThatIsBeingStoppedNoLongerCounts) {
  EXPECT_EQ(keep(1, {live("a", ReplicaState::stopping, 1)}, at(9)).launch, 1);
}

TEST(Keep, StopsFirstWhatServesNothingThenTheYoungest) {
  const auto d = keep(1,
                      {live("old", ReplicaState::ready, 1), live("new", ReplicaState::ready, 2),
                       live("starting", ReplicaState::starting, 0)},
                      at(9));
  EXPECT_EQ(d.stop, (std::vector<std::string>{"starting", "new"}));
}

TEST(Keep, FailuresAreAnsweredMoreAndMoreSlowly) {
  std::vector<ReplicaView> history;
  const int kPauses[] = {0, 1, 2, 4, 8, 16, 32, 60, 60};
  for (const int pause : kPauses) {
    history.push_back(failed(90, 100));
    const auto before = keep(2, history, at(100 + pause) - Duration{1});
    const auto then = keep(2, history, at(100 + pause));
    if (pause > 0) {
      EXPECT_EQ(before.launch, 0) << pause;
      EXPECT_EQ(before.not_before, at(100 + pause));
    }
    EXPECT_EQ(then.launch, 1) << "one at a time after " << pause;
  }
}

TEST(Keep, AMinuteOfHealthForgivesEarlierFailures) {
  const auto d = keep(1, {failed(1, 2), failed(3, 4), failed(5, 6), failed(10, 100, 20)}, at(100));
  EXPECT_EQ(d.failures, 1);
  EXPECT_EQ(d.launch, 1);
}

TEST(Keep, WhatWasStoppedIsNoFailure) {
  auto stopped = failed(1, 2);
  stopped.failed = false;
  EXPECT_EQ(keep(2, {stopped}, at(3)).launch, 2);
}

}  // namespace
}  // namespace lathe::serving
