#pragma once

#include <optional>

#include "engines/engine.h"
#include "jobs/job.h"

/// What to do about a job that is under way. Pure.
namespace lathe::jobs {

/// What the engine says of its run.
struct EngineView {
  enum class Kind {
    unknown,      ///< it has never heard of it, or has forgotten it
    unavailable,  ///< it does not answer
    known,
  };
  Kind kind = Kind::unknown;
  std::optional<engines::RunStatus> status;  ///< exactly where it is known
};

struct Decision {
  enum class Step {
    nothing,  ///< all is as it should be, or nothing can be done now
    start,    ///< tell the engine to start it (again: that is no harm)
    running,  ///< note that it runs
    stop,     ///< tell the engine to stop it
    finish,   ///< it is over, for `cause`
    restart,  ///< it is over through no fault of its own: queue it again
  };
  Step step = Step::nothing;
  Cause cause = {};
  bool operator==(const Decision&) const = default;
};

/// How often the platform starts a job again whose machine was lost.
inline constexpr int kMaxRestarts = 3;

/// `state` is starting, running or stopping; `restarts` how many attempts it has lost so far.
Decision decide(JobState state, const EngineView& view, int restarts);

/// Why a run has ended, in a job's terms. `stop_asked`: somebody had asked for it.
Cause cause_of(const engines::RunStatus& status, bool stop_asked);

}  // namespace lathe::jobs
