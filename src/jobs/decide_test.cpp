#include "jobs/decide.h"

#include <gtest/gtest.h>

namespace lathe::jobs {
namespace {

using engines::EndCause;
using engines::RankState;
using Step = Decision::Step;

engines::RunStatus run(RankState state) {
  engines::RunStatus out;
  out.state = state;
  out.ranks.resize(1);
  out.ranks[0].state = state;
  return out;
}

engines::RunStatus ended(EndCause cause, std::optional<int> code = {}, std::optional<int> signal = {},
                         std::size_t ranks = 1, std::size_t verdict = 0) {
  engines::RunStatus out;
  out.state = RankState::ended;
  out.ranks.resize(ranks);
  for (auto& rank : out.ranks) {
    rank.state = RankState::ended;
    rank.end = engines::RankEnd{};
    rank.end->cause = EndCause::sibling_failed;
  }
  out.verdict_rank = verdict;
  auto& end = *out.ranks[verdict].end;
  end.cause = cause;
  end.exit_code = code;
  end.signal = signal;
  end.message = {"中", "words"};
  return out;
}

EngineView known(engines::RunStatus status) {
  return {EngineView::Kind::known, std::move(status)};
}

TEST(Decide, TheWholeTable) {
  const EngineView unknown{EngineView::Kind::unknown, {}}, unavailable{EngineView::Kind::unavailable, {}};
  const EngineView starting = known(run(RankState::starting)), running = known(run(RankState::running)),
                   success = known(ended(EndCause::exited, 0)), lost = known(ended(EndCause::lost)),
                   stopped = known(ended(EndCause::stopped));
  struct Row {
    JobState state;
    EngineView view;
    int restarts;
    Step step;
    Reason reason;
  };
  const Row rows[] = {
      {JobState::starting, unavailable, 0, Step::nothing, Reason::none},
      {JobState::running, unavailable, 0, Step::nothing, Reason::none},
      {JobState::stopping, unavailable, 0, Step::nothing, Reason::none},
      // Killed between writing the intent and telling the engine, or before knowing whether it took it.
      {JobState::starting, unknown, 0, Step::start, Reason::none},
      {JobState::starting, starting, 0, Step::nothing, Reason::none},
      {JobState::starting, running, 0, Step::running, Reason::none},
      {JobState::starting, success, 0, Step::finish, Reason::completed},
      {JobState::running, starting, 0, Step::nothing, Reason::none},
      {JobState::running, running, 0, Step::nothing, Reason::none},
      {JobState::running, success, 0, Step::finish, Reason::completed},
      {JobState::running, stopped, 0, Step::finish, Reason::evicted},
      {JobState::running, lost, 0, Step::restart, Reason::node_failure},
      {JobState::running, lost, kMaxRestarts, Step::finish, Reason::node_failure},
      {JobState::running, unknown, 0, Step::restart, Reason::node_failure},
      {JobState::running, unknown, kMaxRestarts, Step::finish, Reason::node_failure},
      {JobState::stopping, unknown, 0, Step::finish, Reason::stopped_by_user},
      {JobState::stopping, starting, 0, Step::stop, Reason::none},
      {JobState::stopping, running, 0, Step::stop, Reason::none},
      {JobState::stopping, stopped, 0, Step::finish, Reason::stopped_by_user},
      {JobState::stopping, lost, 0, Step::finish, Reason::stopped_by_user},
      // It ended by itself before the stop reached it: that is what happened.
      {JobState::stopping, success, 0, Step::finish, Reason::completed},
  };
  int number = 0;
  for (const auto& row : rows) {
    const Decision got = decide(row.state, row.view, row.restarts);
    EXPECT_EQ(got.step, row.step) << "row " << number;
    EXPECT_EQ(got.cause.reason, row.reason) << "row " << number;
    ++number;
  }
}

TEST(Decide, EveryEndHasItsReason) {
  struct Row {
    engines::RunStatus status;
    const char* label;
    int rank;
  };
  const Row rows[] = {
      {ended(EndCause::exited, 0), "Completed", -1},
      {ended(EndCause::exited, 7), "ExitCode 7", -1},
      {ended(EndCause::exited, 7, {}, 2, 1), "ExitCode 7", 1},
      {ended(EndCause::signaled, {}, 11), "Signal 11", -1},
      {ended(EndCause::out_of_memory, {}, 9, 2, 0), "OutOfMemory", 0},
      {ended(EndCause::time_limit), "TimeLimit", -1},
      {ended(EndCause::launch_failed), "EngineError", -1},
      {ended(EndCause::sibling_failed), "EngineError", -1},
      {ended(EndCause::lost), "NodeFailure", -1},
      {ended(EndCause::stopped), "Evicted", -1},
  };
  for (const auto& row : rows) {
    const Cause got = cause_of(row.status, false);
    EXPECT_EQ(label(got), row.label);
    EXPECT_EQ(got.rank, row.rank) << row.label;
  }
  EXPECT_EQ(cause_of(ended(EndCause::stopped), true).reason, Reason::stopped_by_user);
  EXPECT_EQ(cause_of(ended(EndCause::launch_failed), false).detail.en, "words");
}

}  // namespace
}  // namespace lathe::jobs
