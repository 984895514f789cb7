#pragma once

#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

/// How many replicas a version is to have, from what was asked of it. Pure. The rules are those of Knative's
/// pod autoscaler: a stable window decides, a short panic window overrules it upwards when the load has
/// doubled, and nothing shrinks while that lasts.
namespace lathe::serving {

struct ScaleRules {
  Duration tick{2'000};  ///< how often a decision is made
  Duration stable_window{60'000};
  Duration panic_window{6'000};
  Duration zero_grace{30'000};        ///< after a whole idle stable window, before the last replica goes
  double utilisation = 0.7;           ///< how much of its threshold a replica is to bear in the mean
  double panic_threshold = 2.0;       ///< panic at this multiple of what the ready replicas are to bear
  double max_scale_up_rate = 1000.0;  ///< at most so many times the ready replicas in one decision
  double max_scale_down_rate = 2.0;   ///< at least the ready replicas divided by this
};

struct ScaleBounds {
  int min = 1;  ///< 0: may sleep
  int max = 1;
};

/// What was seen up to now, of all replicas together.
struct Observed {
  int ready = 0;
  /// Means of the metric over the two windows; nothing if it could not be measured.
  std::optional<double> stable, panic;
  /// Since the last request ended; zero while one is under way or held.
  Duration idle{0};
};

/// What must be remembered from one decision to the next.
struct ScaleState {
  int desired = 0;
  std::optional<Time> panic_since;  ///< the last moment over the panic threshold
  int panic_peak = 0;               ///< nothing below it while panicking
};

/// Where a version is taken up with replicas already running, as after a restart: what is not known about
/// the past must not shrink it, so more than one begin in panic.
ScaleState resumed(int desired, int running, Time now);

enum class ScaleReason {
  steady,      ///< as before
  load,        ///< the stable window
  burst,       ///< the panic window
  woken,       ///< a request came while it slept
  idle,        ///< nobody has asked for a whole stable window and the grace
  at_minimum,  ///< the load alone would need fewer
  at_maximum,  ///< the load alone would need more
  unmeasured,  ///< no figure to decide by
};
std::string_view name(ScaleReason reason);

struct ScaleDecision {
  ScaleState next;
  ScaleReason reason = ScaleReason::steady;
  int by_load = 0;  ///< what the load alone asks for, before bounds and grace
};

/// `target`: of the metric, for one replica, the utilisation included.
ScaleDecision scale(const ScaleRules& rules, double target, ScaleBounds bounds, const ScaleState& before,
                    const Observed& seen, Time now);

}  // namespace lathe::serving
