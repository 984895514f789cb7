#include "serving/autoscale.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lathe::serving {

namespace {

constexpr std::pair<ScaleReason, std::string_view> kNames[] = {
    {ScaleReason::steady, "Steady"},
    {ScaleReason::load, "Load"},
    {ScaleReason::burst, "Burst"},
    {ScaleReason::woken, "Woken"},
    {ScaleReason::idle, "Idle"},
    {ScaleReason::at_minimum, "AtMinimum"},
    {ScaleReason::at_maximum, "AtMaximum"},
    {ScaleReason::unmeasured, "MetricUnavailable"}};

constexpr double kMost = 1e6;

}  // namespace

std::string_view name(ScaleReason reason) {
  for (const auto& [one, word] : kNames)
    if (one == reason) return word;
  return "";
}

ScaleState resumed(int desired, int running, Time now) {
  ScaleState state{.desired = desired, .panic_since = {}, .panic_peak = 0};
  if (running > 1) {
    state.panic_since = now;
    state.panic_peak = running;
  }
  return state;
}

ScaleDecision scale(const ScaleRules& rules, double target, ScaleBounds bounds, const ScaleState& before,
                    const Observed& seen, Time now) {
  ScaleDecision out{.next = before, .reason = ScaleReason::steady, .by_load = before.desired};
  int wanted = before.desired;
  if (!seen.stable || !seen.panic) {
    out.reason = ScaleReason::unmeasured;
  } else {
    const double ready = std::max(1, seen.ready);
    const double most = std::ceil(rules.max_scale_up_rate * ready);
    const double least = std::floor(ready / rules.max_scale_down_rate);
    const double stable = std::ceil(*seen.stable / target), panic = std::ceil(*seen.panic / target);
    const auto limited = [&](double count) {
      return static_cast<int>(std::min({std::max(count, least), most, kMost}));
    };

    ScaleState& state = out.next;
    if (panic / ready >= rules.panic_threshold) {
      state.panic_since = now;
    } else if (state.panic_since && *state.panic_since + rules.stable_window < now) {
      state.panic_since.reset();  // the surge has made its way into the stable window
      state.panic_peak = 0;
    }
    wanted = limited(stable);
    out.reason = ScaleReason::load;
    if (state.panic_since) {
      state.panic_peak = std::max({state.panic_peak, wanted, limited(panic)});
      wanted = state.panic_peak;
      out.reason = ScaleReason::burst;
    }
    out.by_load = wanted;
  }

  // Long requests leave no trace in a rate, and a short one hardly any in a mean.
  const bool asleep = before.desired == 0 && seen.idle > Duration::zero();
  const bool idle = seen.idle >= rules.stable_window + rules.zero_grace;
  if (bounds.min == 0 && (asleep || idle)) {
    wanted = 0;
    out.reason = ScaleReason::idle;
  } else if (wanted < std::max(1, bounds.min)) {
    wanted = std::max(1, bounds.min);
    out.reason = ScaleReason::at_minimum;
  } else if (wanted > bounds.max) {
    wanted = bounds.max;
    out.reason = ScaleReason::at_maximum;
  }
  if (wanted == before.desired && out.reason != ScaleReason::unmeasured) out.reason = ScaleReason::steady;
  out.next.desired = wanted;
  return out;
}

}  // namespace lathe::serving
