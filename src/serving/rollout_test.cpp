#include "serving/rollout.h"

#include <gtest/gtest.h>

namespace lathe::serving {
namespace {

VersionPart settled(int rate, int replicas) {
  return {.rate = rate, .ready = replicas, .running = replicas, .desired = replicas, .rolled_out = true};
}
VersionPart rolling(int rate, int ready, int running, int desired) {
  return {.rate = rate, .ready = ready, .running = running, .desired = desired, .rolled_out = false};
}

double share(const std::vector<VersionRole>& roles, std::size_t i) {
  double sum = 0;
  for (const auto& role : roles) sum += role.weight;
  return sum == 0 ? 0 : 100 * roles[i].weight / sum;
}

TEST(Rollout, SettledVersionsHaveTheirShares) {
  const auto roles = roll_out({settled(90, 4), settled(10, 1)});
  EXPECT_EQ(roles[0].weight, 9 * roles[1].weight);
  EXPECT_EQ(roles[0].hold, 4);
  EXPECT_FALSE(roles[0].retiring);
}

TEST(Rollout, AVersionThatIsNotReadyGetsNothingAndTheOldOneKeepsEverything) {
  const auto roles = roll_out({settled(0, 4), rolling(100, 0, 4, 4)});
  EXPECT_EQ(share(roles, 0), 100);
  EXPECT_EQ(roles[0].hold, 4);
  EXPECT_TRUE(roles[0].retiring);
  EXPECT_EQ(roles[1].hold, 4);
  EXPECT_FALSE(roles[1].rolled_out);
}

TEST(Rollout, PartlyReadyItTakesItsPart) {
  const auto roles = roll_out({settled(0, 4), rolling(100, 1, 4, 4)});
  EXPECT_EQ(share(roles, 1), 25);
  EXPECT_EQ(roles[0].hold, 4) << "not shrunk by one";
}

TEST(Rollout, OnceReadyTheOldOneGoes) {
  const auto roles = roll_out({settled(0, 4), rolling(100, 4, 4, 4)});
  EXPECT_TRUE(roles[1].rolled_out);
  EXPECT_EQ(share(roles, 1), 100);
  EXPECT_EQ(roles[0].hold, 0);
  EXPECT_FALSE(roles[0].retiring);
}

TEST(Rollout, ItWaitsForAllThatReplaceIt) {
  const auto roles = roll_out({settled(0, 2), rolling(50, 1, 1, 1), rolling(50, 0, 1, 1)});
  EXPECT_EQ(roles[0].hold, 2);
  EXPECT_EQ(share(roles, 0), 50);
  EXPECT_EQ(share(roles, 1), 50);
}

TEST(Rollout, ACanaryLeavesTheStableOneAlone) {
  const auto roles = roll_out({settled(90, 3), rolling(10, 0, 1, 1)});
  EXPECT_EQ(share(roles, 0), 100);
  EXPECT_EQ(roles[0].hold, 3);
  EXPECT_EQ(roll_out({settled(90, 3), rolling(10, 1, 1, 1)})[0].weight, 90'000);
}

TEST(Rollout, OneThatWasWholeOnceKeepsItsShareWhenItScales) {
  auto growing = settled(50, 1);
  growing.desired = 8;
  const auto roles = roll_out({growing, settled(50, 4)});
  EXPECT_EQ(share(roles, 0), 50);
}

TEST(Rollout, AsleepIsStillRolledOut) {
  auto asleep = settled(100, 0);
  const auto roles = roll_out({asleep});
  EXPECT_TRUE(roles[0].rolled_out);
  EXPECT_EQ(roles[0].hold, 0);
}

TEST(Rollout, BackToAVersionThatStillRunsIsImmediate) {
  const auto roles = roll_out({rolling(100, 4, 4, 4), rolling(0, 1, 4, 4)});
  EXPECT_EQ(share(roles, 0), 100);
  EXPECT_EQ(roles[1].hold, 0);
}

TEST(Rollout, BeginsWithWhatItsShareNeeds) {
  EXPECT_EQ(first_replicas(8, 100, 1, 10), 8);
  EXPECT_EQ(first_replicas(8, 10, 1, 10), 1);
  EXPECT_EQ(first_replicas(8, 100, 1, 4), 4);
  EXPECT_EQ(first_replicas(0, 100, 0, 4), 1) << "one that may sleep begins awake";
  EXPECT_EQ(first_replicas(0, 100, 3, 4), 3);
}

}  // namespace
}  // namespace lathe::serving
