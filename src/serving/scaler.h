#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gateway/gateway.h"
#include "serving/load_window.h"
#include "serving/serving.h"

namespace lathe::serving {

/// Remembers what the gateway and the GPUs say from tick to tick, and decides by it how many replicas each
/// version is to have. What it remembers is lost at a restart; nothing shrinks then until it is known again.
class Scaler {
 public:
  Scaler(const ScaleRules& rules, std::function<std::map<std::string, int>()> gpu_use)
      : rules_(rules), gpu_use_(std::move(gpu_use)) {}

  struct Version {
    std::string id, service_id;
    std::int64_t metric = 1;
    double threshold = 100;
    int rate = 100;
    ScaleBounds bounds;
    int desired = 1, ready = 0, running = 0;
    bool may_shrink = true;                      ///< not while a rollout depends on it
    std::vector<std::vector<std::string>> gpus;  ///< uuids, by ready replica; where the metric needs them
  };
  struct Decision {
    std::string version_id;
    int before = 0, after = 0;
    ScaleReason reason = ScaleReason::steady;
    Text words;
  };
  /// A new sample of everything, and the decisions that change something or have become impossible.
  std::vector<Decision> tick(const gateway::Load& load, const std::vector<Version>& versions, Time now);

  /// The service was asked for while it slept: begin anew from there.
  void woken(const std::string& service_id, const std::string& version_id, Time now);

  /// What the last decision about a version saw.
  struct Figures {
    std::optional<double> stable, panic;
    double target = 0;
    bool panicking = false;
  };
  std::optional<Figures> figures(const std::string& version_id) const;

 private:
  struct Memory {
    LoadWindow window;
    ScaleState state;
    bool told_unmeasured = false, could_shrink = true;
    Figures figures;
    double concurrency_seconds = 0;
    std::uint64_t requests = 0;
  };
  struct Activity {
    Time last{};
    std::uint64_t queued_total = 0;
    double queued_seconds = 0;
    double held = 0;  ///< requests held in the mean since the last tick
  };
  void see_activity(const gateway::Load& load, const std::set<std::string>& awake, double seconds, Time now);

  const ScaleRules rules_;
  const std::function<std::map<std::string, int>()> gpu_use_;
  std::optional<std::chrono::steady_clock::time_point> last_tick_;
  std::map<std::string, Activity> services_;
  mutable std::mutex mutex_;
  std::map<std::string, Memory> versions_;
};

}  // namespace lathe::serving
