#include "jobs/decide.h"

namespace lathe::jobs {

Cause cause_of(const engines::RunStatus& status, bool stop_asked) {
  using engines::EndCause;
  const engines::RankEnd& end = status.verdict();
  Cause out;
  if (status.ranks.size() > 1) out.rank = static_cast<int>(status.verdict_rank);
  switch (end.cause) {
    case EndCause::exited:
      out.number = end.exit_code.value_or(0);
      out.reason = out.number == 0 ? Reason::completed : Reason::exit_code;
      break;
    case EndCause::signaled:
      out.reason = Reason::signal;
      out.number = end.signal.value_or(0);
      break;
    case EndCause::out_of_memory:
      out.reason = Reason::out_of_memory;
      break;
    case EndCause::time_limit:
      out.reason = Reason::time_limit;
      break;
    case EndCause::stopped:
      out.reason = stop_asked ? Reason::stopped_by_user : Reason::evicted;
      break;
    case EndCause::sibling_failed:
    case EndCause::launch_failed:
      out.reason = Reason::engine_error;
      out.detail = end.message;
      break;
    case EndCause::lost:
      out.reason = Reason::node_failure;
      out.detail = end.message;
      break;
  }
  if (out.reason == Reason::completed || out.reason == Reason::stopped_by_user) out.rank = -1;
  return out;
}

Decision decide(JobState state, const EngineView& view, int restarts) {
  using Step = Decision::Step;
  using Kind = EngineView::Kind;
  if (view.kind == Kind::unavailable) return {};
  const bool stopping = state == JobState::stopping;
  if (view.kind == Kind::unknown) {
    if (stopping) return {Step::finish, {.reason = Reason::stopped_by_user}};
    if (state == JobState::starting) return {Step::start, {}};
    const Cause lost{.reason = Reason::node_failure,
                     .detail = {"运行引擎没有这个任务的记录", "the engine has no record of it"}};
    return {restarts < kMaxRestarts ? Step::restart : Step::finish, lost};
  }
  switch (view.status->state) {
    case engines::RankState::starting:
      return {stopping ? Step::stop : Step::nothing, {}};
    case engines::RankState::running:
      if (stopping) return {Step::stop, {}};
      return {state == JobState::starting ? Step::running : Step::nothing, {}};
    case engines::RankState::ended:
      break;
  }
  Cause cause = cause_of(*view.status, stopping);
  // Whoever asked for a stop does not want it again.
  if (cause.reason == Reason::node_failure && stopping)
    return {Step::finish, {.reason = Reason::stopped_by_user}};
  if (cause.reason == Reason::node_failure && restarts < kMaxRestarts)
    return {Step::restart, std::move(cause)};
  return {Step::finish, std::move(cause)};
}

}  // namespace lathe::jobs
