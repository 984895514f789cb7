#include "serving/autoscale.h"

#include <gtest/gtest.h>

#include "serving/simulation.h"

namespace lathe::serving {
namespace {

using std::chrono::seconds;

constexpr Time kStart{std::chrono::hours{24}};

/// The rules that Knative's own examples of decisions are given with.
ScaleRules example_rules() {
  ScaleRules rules;
  rules.max_scale_up_rate = 10;
  rules.max_scale_down_rate = 10;
  return rules;
}
constexpr ScaleBounds kAny{.min = 0, .max = 1'000'000};

Observed seen(int ready, double stable, double panic, Duration idle = Duration{0}) {
  return {.ready = ready, .stable = stable, .panic = panic, .idle = idle};
}

struct Autoscaler {
  ScaleRules rules = example_rules();
  double target = 10;
  ScaleBounds bounds = kAny;
  ScaleState state{.desired = 1, .panic_since = {}, .panic_peak = 0};
  ScaleReason reason = ScaleReason::steady;

  int at(Time now, int ready, double stable, double panic) {
    const auto decision = scale(rules, target, bounds, state, seen(ready, stable, panic), now);
    state = decision.next;
    reason = decision.reason;
    return state.desired;
  }
};

// The numbers of Knative's published examples and tests of its autoscaler (metric over the stable and over
// the panic window, ready pods → pods), which every reimplementation has to meet.

TEST(AutoscaleGolden, SingleDecisions) {
  struct Case {
    const char* what;
    double target;
    int ready;
    double stable, panic;
    double up, down;
    int wanted;
  };
  constexpr Case kCases[] = {
      {"one is enough", 181, 1, 21, 26, 10, 10, 1},
      {"the stable window asks for five", 10, 1, 50, 49, 10, 10, 5},
      {"the same with a calm panic window", 10, 1, 50, 10, 10, 10, 5},
      {"twice the load, twice the pods", 10, 1, 100, 10, 10, 10, 10},
      {"as many as there are", 10, 5, 50, 50, 10, 10, 5},
      {"a small rate of growth still allows the next pod", 1, 2, 3, 3.1, 1.1, 10, 3},
      {"a small rate of shrinking", 10, 100, 1, 1, 10, 1.1, 90},
      {"the panic window takes precedence", 10, 1, 50, 100, 10, 10, 10},
      {"at most ten times as many at once", 10, 1, 1000, 1001, 10, 10, 10},
      {"and ten times again", 10, 10, 1000, 1001, 10, 10, 100},
      {"at least a tenth stays", 10, 100, 1, 1, 10, 10, 10},
      {"then a tenth of that", 10, 10, 1, 1, 10, 10, 1},
      {"none ready counts as one", 10, 0, 1000, 888, 10, 10, 10},
      {"shrinking in stable mode", 10, 8, 50, 50, 10, 10, 5},
      {"requests a second, likewise", 10, 1, 100, 99, 10, 10, 10},
  };
  for (const auto& c : kCases) {
    Autoscaler autoscaler;
    autoscaler.target = c.target;
    autoscaler.rules.max_scale_up_rate = c.up;
    autoscaler.rules.max_scale_down_rate = c.down;
    EXPECT_EQ(autoscaler.at(kStart, c.ready, c.stable, c.panic), c.wanted) << c.what;
  }
}

TEST(AutoscaleGolden, PanicEndsAfterASlowIncrease) {
  Autoscaler autoscaler{.target = 1};
  EXPECT_EQ(autoscaler.at(kStart, 10, 11, 25), 25);
  EXPECT_EQ(autoscaler.state.panic_since, kStart);
  EXPECT_EQ(autoscaler.at(kStart + seconds{30}, 40, 30, 41), 41);
  EXPECT_EQ(autoscaler.state.panic_since, kStart) << "it is no surge any more";
  EXPECT_EQ(autoscaler.at(kStart + seconds{62}, 55, 50, 56), 50) << "no longer in panic";
  EXPECT_FALSE(autoscaler.state.panic_since);
}

TEST(AutoscaleGolden, PanicIsExtendedWhileItSurges) {
  Autoscaler autoscaler{.target = 1};
  EXPECT_EQ(autoscaler.at(kStart, 10, 11, 25), 25);
  EXPECT_EQ(autoscaler.at(kStart + seconds{30}, 40, 30, 80), 80);
  EXPECT_EQ(autoscaler.state.panic_since, kStart + seconds{30});
}

TEST(AutoscaleGolden, TracksExponentialGrowthAndStays) {
  Autoscaler autoscaler{.target = 1};
  int ready = 1;
  Time now = kStart;
  for (const int load : {6, 36, 216, 1296, 1296}) {
    EXPECT_EQ(autoscaler.at(now, ready, load, load), load);
    ready = load;
    now += seconds{1};
  }
}

TEST(AutoscaleGolden, NoShrinkingInPanicAndOneStableWindowAfter) {
  Autoscaler autoscaler;
  EXPECT_EQ(autoscaler.at(kStart, 1, 100, 100), 10);
  EXPECT_EQ(autoscaler.at(kStart, 10, 100, 1000), 100);
  EXPECT_EQ(autoscaler.at(kStart + seconds{30}, 10, 1, 1), 100) << "still in panic";
  EXPECT_EQ(autoscaler.reason, ScaleReason::steady);
  EXPECT_EQ(autoscaler.at(kStart + seconds{61}, 10, 1, 1), 1);
}

TEST(AutoscaleGolden, InPanicTheLargerWindowCounts) {
  for (const auto& [stable, wanted] : {std::pair{50.0, 50}, std::pair{20.0, 30}}) {
    Autoscaler autoscaler{.target = 1};
    autoscaler.state = {.desired = 5, .panic_since = kStart - seconds{5}, .panic_peak = 5};
    EXPECT_EQ(autoscaler.at(kStart, 5, stable, 30), wanted);
  }
}

TEST(AutoscaleGolden, ANewTargetCountsAtOnce) {
  Autoscaler autoscaler;
  EXPECT_EQ(autoscaler.at(kStart, 1, 100, 101), 10);
  autoscaler.target = 1;
  EXPECT_EQ(autoscaler.at(kStart, 10, 100, 101), 100);
}

TEST(AutoscaleGolden, TakenUpWithSeveralItBeginsInPanic) {
  EXPECT_FALSE(resumed(1, 0, kStart).panic_since);
  EXPECT_FALSE(resumed(1, 1, kStart).panic_since);
  const auto state = resumed(2, 2, kStart);
  EXPECT_EQ(state.panic_since, kStart);
  EXPECT_EQ(state.panic_peak, 2);
}

TEST(AutoscaleGolden, DefaultsAreKnatives) {
  const ScaleRules rules;
  EXPECT_EQ(rules.tick, seconds{2});
  EXPECT_EQ(rules.stable_window, seconds{60});
  EXPECT_EQ(rules.panic_window, seconds{6});
  EXPECT_EQ(rules.zero_grace, seconds{30});
  EXPECT_EQ(rules.utilisation, 0.7);
  EXPECT_EQ(rules.panic_threshold, 2.0);
  EXPECT_EQ(rules.max_scale_up_rate, 1000.0);
  EXPECT_EQ(rules.max_scale_down_rate, 2.0);
}

TEST(Autoscale, BoundsHoldAndSayWhy) {
  Autoscaler autoscaler;
  autoscaler.bounds = {.min = 2, .max = 4};
  EXPECT_EQ(autoscaler.at(kStart, 1, 0, 0), 2);
  EXPECT_EQ(autoscaler.reason, ScaleReason::at_minimum);
  EXPECT_EQ(autoscaler.at(kStart, 2, 100, 100), 4);
  EXPECT_EQ(autoscaler.reason, ScaleReason::at_maximum);
  EXPECT_EQ(autoscaler.at(kStart, 4, 100, 100), 4);
  EXPECT_EQ(autoscaler.reason, ScaleReason::steady);
}

TEST(Autoscale, SleepsOnlyAfterAWholeIdleWindowAndTheGrace) {
  const ScaleRules rules;
  const ScaleState one{.desired = 1, .panic_since = {}, .panic_peak = 0};
  const auto after = [&](int idle, int min) {
    return scale(rules, 70, {.min = min, .max = 4}, one, seen(1, 0, 0, seconds{idle}), kStart);
  };
  EXPECT_EQ(after(89, 0).next.desired, 1);
  EXPECT_EQ(after(90, 0).next.desired, 0);
  EXPECT_EQ(after(90, 0).reason, ScaleReason::idle);
  EXPECT_EQ(after(9000, 1).next.desired, 1) << "it may not";
}

TEST(Autoscale, OneLongRequestKeepsItAwakeWhateverTheMetricSays) {
  const ScaleState one{.desired = 1, .panic_since = {}, .panic_peak = 0};
  EXPECT_EQ(scale({}, 70, kAny, one, seen(1, 0, 0, Duration{0}), kStart).next.desired, 1);
}

TEST(Autoscale, WhatCannotBeMeasuredStaysWithinItsBounds) {
  const ScaleState three{.desired = 3, .panic_since = {}, .panic_peak = 0};
  const Observed blind{.ready = 3, .stable = {}, .panic = {}, .idle = Duration{0}};
  const auto decision = scale({}, 70, {.min = 1, .max = 8}, three, blind, kStart);
  EXPECT_EQ(decision.next.desired, 3);
  EXPECT_EQ(decision.reason, ScaleReason::unmeasured);
  EXPECT_EQ(scale({}, 70, {.min = 1, .max = 2}, three, blind, kStart).next.desired, 2);
}

TEST(LoadWindow, MeansOverWhatIsKnown) {
  LoadWindow window;
  EXPECT_FALSE(window.mean(kStart, seconds{60}));
  window.add(kStart + seconds{2}, seconds{2}, 10);
  EXPECT_DOUBLE_EQ(*window.mean(kStart + seconds{2}, seconds{60}), 10);
  window.add(kStart + seconds{4}, seconds{2}, 40);
  EXPECT_DOUBLE_EQ(*window.mean(kStart + seconds{4}, seconds{60}), 25);
  EXPECT_DOUBLE_EQ(*window.mean(kStart + seconds{4}, seconds{3}), 30) << "2 s of 40 and 1 s of 10";
  EXPECT_FALSE(window.mean(kStart + seconds{100}, seconds{60}));
}

// --- traces

int desired_at(const std::vector<SimulatedTick>& ticks, int second) {
  int out = -1;
  for (const auto& tick : ticks)
    if (tick.at <= seconds{second}) out = tick.desired;
  return out;
}

int first_time(const std::vector<SimulatedTick>& ticks, int desired) {
  for (const auto& tick : ticks)
    if (tick.desired == desired) return static_cast<int>(tick.at / seconds{1});
  return -1;
}

TEST(AutoscaleTrace, SteadyLoadMeetsTheDocumentedNumber) {
  // 50 requests at a time, 10 for a replica at 70 %: 50 ÷ 7 → 8.
  const auto ticks =
      simulate({.rules = {}, .threshold = 10, .load = [](Duration) { return 50.0; }}, seconds{300});
  EXPECT_EQ(desired_at(ticks, 2), 8);
  for (const auto& tick : ticks) EXPECT_EQ(tick.desired, 8) << tick.at.count();
}

TEST(AutoscaleTrace, ABurstIsMetWithinThePanicWindowAndLetGoOfAfterTheStableOne) {
  const auto ticks =
      simulate({.rules = {},
                .threshold = 10,
                .bounds = {.min = 1, .max = 100},
                .start_time = seconds{3},
                .load = [](Duration at) { return at >= seconds{120} && at < seconds{150} ? 100.0 : 5.0; }},
               seconds{400});
  EXPECT_EQ(desired_at(ticks, 119), 1);
  EXPECT_GE(desired_at(ticks, 122), 5) << "after one tick a third of the panic window is full";
  EXPECT_EQ(desired_at(ticks, 126), 15) << "100 ÷ 7 once it is full";
  EXPECT_EQ(desired_at(ticks, 150), 15);
  // Ready ones catch up after 3 s, so the last moment over the threshold is soon after; from there a window.
  EXPECT_EQ(desired_at(ticks, 180), 15) << "no shrinking in panic";
  EXPECT_EQ(desired_at(ticks, 260), 1);
  int before = 15;
  for (const auto& tick : ticks) {
    if (tick.at < seconds{150}) continue;
    EXPECT_LE(tick.desired, before) << "it only shrinks from there";
    before = tick.desired;
  }
}

TEST(AutoscaleTrace, ShrinksByHalfATickAtMost) {
  const auto ticks = simulate({.rules = {},
                               .threshold = 10,
                               .bounds = {.min = 1, .max = 100},
                               .replicas = 40,
                               .load = [](Duration) { return 1.0; }},
                              seconds{30});
  const std::vector<int> expected{20, 10, 5, 2, 1, 1};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(ticks[i].desired, expected[i]) << i;
}

TEST(AutoscaleTrace, ToZeroAndBack) {
  const auto ticks =
      simulate({.rules = {},
                .threshold = 100,
                .start_time = seconds{5},
                .load = [](Duration at) { return at < seconds{30} || at >= seconds{300} ? 3.0 : 0.0; }},
               seconds{400});
  EXPECT_EQ(desired_at(ticks, 29), 1);
  EXPECT_EQ(desired_at(ticks, 118), 1) << "88 s idle";
  EXPECT_EQ(first_time(ticks, 0), 120) << "60 s and 30 s of grace after the last request";
  EXPECT_EQ(desired_at(ticks, 299), 0);
  EXPECT_EQ(desired_at(ticks, 300), 1) << "at once, not at the next tick";
  EXPECT_EQ(desired_at(ticks, 400), 1);
}

TEST(AutoscaleTrace, WokenByAHundredItHasEnoughAtTheNextTick) {
  const auto ticks = simulate({.rules = {},
                               .threshold = 10,
                               .bounds = {.min = 0, .max = 20},
                               .start_time = seconds{10},
                               .replicas = 0,
                               .load = [](Duration at) { return at >= seconds{61} ? 100.0 : 0.0; }},
                              seconds{120});
  EXPECT_EQ(desired_at(ticks, 60), 0);
  EXPECT_EQ(desired_at(ticks, 61), 1);
  EXPECT_EQ(desired_at(ticks, 62), 8) << "half a tick of a hundred, half of nothing";
  EXPECT_EQ(desired_at(ticks, 64), 11);
  EXPECT_EQ(desired_at(ticks, 68), 15) << "100 ÷ 7";
  EXPECT_EQ(desired_at(ticks, 120), 15);
}

TEST(AutoscaleTrace, NoiseAroundTheTargetDoesNotMakeItFlap) {
  int changes = 0;
  int before = -1;
  const auto ticks = simulate({.rules = {},
                               .threshold = 10,
                               .bounds = {.min = 1, .max = 20},
                               .replicas = 3,
                               .load = [](Duration at) { return 17.5 + 3 * ((at / seconds{4}) % 2); }},
                              seconds{600});
  for (const auto& tick : ticks) {
    if (before >= 0 && tick.desired != before) ++changes;
    before = tick.desired;
  }
  EXPECT_LE(changes, 1);
  EXPECT_EQ(before, 3);
}

}  // namespace
}  // namespace lathe::serving
