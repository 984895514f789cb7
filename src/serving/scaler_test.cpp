#include "serving/scaler.h"

#include <gtest/gtest.h>

namespace lathe::serving {
namespace {

using std::chrono::seconds;

/// A service with one version, its counters, and a clock.
class ScalerTest : public ::testing::Test {
 protected:
  ScalerTest() {
    version_.id = "v";
    version_.service_id = "s";
    version_.metric = 2;
    version_.threshold = 10;
    version_.bounds = {.min = 0, .max = 20};
    version_.ready = version_.running = 1;
  }

  /// What has happened in the two seconds before this tick, of one version.
  std::vector<Scaler::Decision> tick(double concurrency, std::uint64_t requests = 0, double queued = 0) {
    now_ += seconds{2};
    at_ += seconds{2};
    concurrency_seconds_ += 2 * concurrency;
    requests_ += requests;
    queued_seconds_ += 2 * queued;
    gateway::Load load;
    load.at = at_;
    gateway::ServiceCounters service;
    service.service_id = "s";
    service.queued = static_cast<std::uint64_t>(queued);
    service.queued_seconds = queued_seconds_;
    load.services.push_back(service);
    gateway::VersionCounters counters;
    counters.service_id = "s";
    counters.version_id = "v";
    counters.requests = requests_;
    counters.concurrency_seconds = concurrency_seconds_;
    counters.in_flight = concurrency >= 1 ? 1 : 0;
    load.versions.push_back(counters);
    auto decisions = scaler_.tick(load, {version_}, now_);
    for (const auto& decision : decisions) version_.desired = decision.after;
    return decisions;
  }

  std::map<std::string, int> gpus_;
  Scaler scaler_{ScaleRules{}, [this] { return gpus_; }};
  Scaler::Version version_;
  Time now_{std::chrono::hours{24}};
  std::chrono::steady_clock::time_point at_{};
  double concurrency_seconds_ = 0, queued_seconds_ = 0;
  std::uint64_t requests_ = 0;
};

TEST_F(ScalerTest, ConcurrencyIsTheIntegralOverTimeNotASample) {
  EXPECT_TRUE(tick(0).empty());
  const auto decisions = tick(30);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].after, 5) << "30 ÷ 7";
  EXPECT_EQ(decisions[0].reason, ScaleReason::burst);
  EXPECT_NE(decisions[0].words.en.find("30.00"), std::string::npos) << decisions[0].words.en;
  EXPECT_DOUBLE_EQ(*scaler_.figures("v")->stable, 30);
}

TEST_F(ScalerTest, HeldRequestsCountAsConcurrent) {
  version_.ready = 0;
  tick(0);
  const auto decisions = tick(0, 0, 30);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].after, 5);
}

TEST_F(ScalerTest, RequestsASecondAreArrivals) {
  version_.metric = 1;
  tick(0);
  const auto decisions = tick(0.1, 60);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].after, 5) << "30 a second ÷ 7";
}

TEST_F(ScalerTest, SleepsAfterNinetyIdleSecondsAndNotBeforeIfARequestCameBetween) {
  tick(1, 1);
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(tick(0).empty()) << i;
  tick(0, 1);
  for (int i = 0; i < 44; ++i) EXPECT_TRUE(tick(0).empty()) << i;
  const auto decisions = tick(0);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].after, 0);
  EXPECT_EQ(decisions[0].reason, ScaleReason::idle);
}

TEST_F(ScalerTest, OneThatSleptBeforeARestartSleepsOn) {
  version_.desired = version_.ready = version_.running = 0;
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(tick(0).empty());
}

TEST_F(ScalerTest, SeveralThatRanBeforeARestartAreNotShrunkBeforeAStableWindowIsKnown) {
  version_.desired = version_.ready = version_.running = 6;
  tick(1);
  for (int i = 0; i < 29; ++i) EXPECT_TRUE(tick(1).empty()) << i;
  bool shrunk = false;
  for (int i = 0; i < 5; ++i) shrunk = !tick(1).empty() || shrunk;
  EXPECT_TRUE(shrunk);
}

TEST_F(ScalerTest, ARolloutIsNotShrunkAndHasAWindowOfItsOwnAfterwards) {
  version_.desired = version_.ready = version_.running = 6;
  version_.may_shrink = false;
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(tick(1).empty()) << i;
  version_.may_shrink = true;
  for (int i = 0; i < 29; ++i) EXPECT_TRUE(tick(1).empty()) << i;
}

TEST_F(ScalerTest, GpuUtilisationIsTheMeanOfAReplicasDevicesAddedUp) {
  version_.metric = 3;
  version_.threshold = 50;
  version_.ready = version_.running = 2;
  version_.desired = 2;
  version_.gpus = {{"GPU-a", "GPU-b"}, {"GPU-c"}};
  gpus_ = {{"GPU-a", 100}, {"GPU-b", 80}, {"GPU-c", 60}};
  tick(1);
  const auto decisions = tick(1);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].after, 5) << "(90 + 60) ÷ 35";
  EXPECT_DOUBLE_EQ(*scaler_.figures("v")->panic, 150);
}

TEST_F(ScalerTest, AGpuThatCannotBeMeasuredIsToldOnceAndChangesNothing) {
  version_.metric = 3;
  version_.gpus = {{"GPU-a"}};
  tick(1);
  const auto decisions = tick(1);
  ASSERT_EQ(decisions.size(), 1U);
  EXPECT_EQ(decisions[0].reason, ScaleReason::unmeasured);
  EXPECT_EQ(decisions[0].after, decisions[0].before);
  EXPECT_TRUE(tick(1).empty());
}

}  // namespace
}  // namespace lathe::serving
