#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "serving/autoscale.h"
#include "serving/load_window.h"

/// Plays a trace of traffic to the autoscaler, for tests: load over time in, replicas over time out.
namespace lathe::serving {

struct Simulation {
  ScaleRules rules;
  double threshold = 100;  ///< of the metric, for one replica
  ScaleBounds bounds{.min = 0, .max = 1000};
  Duration start_time{0};  ///< what a replica takes until it is ready
  int replicas = 1;        ///< ready at the beginning
  /// The metric, all replicas together, at a moment since the beginning. Held requests count.
  std::function<double(Duration)> load;
};

struct SimulatedTick {
  Duration at{0};
  int desired = 0, ready = 0;
  ScaleReason reason = ScaleReason::steady;
  bool panicking = false;
};

/// A decision every tick, for as long as `length`. A request that comes to a sleeping version wakes it at
/// once.
inline std::vector<SimulatedTick> simulate(const Simulation& simulation, Duration length) {
  constexpr Duration kStep{100};
  const Time begin{std::chrono::hours{24}};
  std::vector<SimulatedTick> out;
  LoadWindow window;
  ScaleState state{.desired = simulation.replicas, .panic_since = {}, .panic_peak = 0};
  std::vector<Time> ready_from(static_cast<std::size_t>(simulation.replicas), begin);
  Time last_active = begin;
  double sum = 0;
  const auto ready_at = [&](Time now) {
    return static_cast<int>(
        std::count_if(ready_from.begin(), ready_from.end(), [&](Time t) { return t <= now; }));
  };
  const auto resize = [&](int count, Time now) {
    while (static_cast<int>(ready_from.size()) > count) ready_from.pop_back();
    while (static_cast<int>(ready_from.size()) < count) ready_from.push_back(now + simulation.start_time);
  };
  Duration since_tick{0};
  for (Duration at{0}; at <= length; at += kStep) {
    const Time now = begin + at;
    const double load = simulation.load(at);
    if (load > 0) last_active = now;
    if (load > 0 && state.desired == 0) {
      window.clear();
      state = {.desired = 1, .panic_since = {}, .panic_peak = 0};
      resize(1, now);
      out.push_back({at, 1, ready_at(now), ScaleReason::woken, false});
    }
    if (since_tick == simulation.rules.tick) {
      window.add(now, since_tick, sum / static_cast<double>(since_tick / kStep));
      sum = 0;
      since_tick = Duration{0};
      const Observed seen{.ready = ready_at(now),
                          .stable = window.mean(now, simulation.rules.stable_window),
                          .panic = window.mean(now, simulation.rules.panic_window),
                          .idle = now - last_active};
      const auto decision = scale(simulation.rules, simulation.threshold * simulation.rules.utilisation,
                                  simulation.bounds, state, seen, now);
      state = decision.next;
      resize(state.desired, now);
      out.push_back({at, state.desired, ready_at(now), decision.reason, state.panic_since.has_value()});
    }
    sum += load;
    since_tick += kStep;
  }
  return out;
}

}  // namespace lathe::serving
