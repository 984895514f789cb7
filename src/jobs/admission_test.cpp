#include "jobs/admission.h"

#include <gtest/gtest.h>

#include <random>

namespace lathe::admission {
namespace {

using std::chrono::seconds;

Time at(int s) {
  return Time{seconds{s}};
}

std::shared_ptr<const Demand> demand(ResourceRequest each, std::string user = "2", std::string group = "g") {
  return std::make_shared<const Demand>(
      std::move(user), std::move(group),
      std::vector<RankGroup>{{.role = NodeRole::master, .count = 1, .each = std::move(each)}});
}

Candidate job(std::string id, int cpu, int queued_at, std::string user = "2") {
  return {.id = std::move(id),
          .demand = demand({.cpu = cpu, .memory_gb = 1, .gpu = {}}, std::move(user)),
          .queued_at = at(queued_at)};
}
Holding holding(int cpu, int since, std::string user = "2") {
  return {.user_id = std::move(user),
          .group_id = "g",
          .held = {.cpu = cpu, .memory_gb = 1},
          .since = at(since),
          .ends_by = {}};
}
std::vector<std::shared_ptr<const Candidate>> shared(std::vector<Candidate> jobs) {
  std::vector<std::shared_ptr<const Candidate>> out;
  for (auto& each : jobs) out.push_back(std::make_shared<const Candidate>(std::move(each)));
  return out;
}
Snapshot snapshot(int cpu, std::vector<Candidate> queue, std::vector<Holding> holdings = {}) {
  return {
      .now = at(1000),
      .queue = shared(std::move(queue)),
      .holdings = std::move(holdings),
      .groups = {{"g",
                  {.capacity = {.cpu = cpu, .memory_gb = 1000}, .gpus = {}, .usable = true, .trouble = {}}}},
      .quotas = {}};
}
std::string started(const Snapshot& s) {
  std::string out;
  for (const auto& verdict : admit(s))
    if (verdict.start) out += s.queue[verdict.place]->id;
  return out;
}
Reason reason_of(const Snapshot& s, const std::string& id) {
  for (const auto& verdict : admit(s))
    if (s.queue[verdict.place]->id == id && verdict.cause) return verdict.cause->reason;
  return Reason::none;
}

TEST(Admission, StartsWhatFitsInTheOrderOfTheQueue) {
  EXPECT_EQ(started(snapshot(4, {job("b", 2, 2), job("a", 2, 1), job("c", 1, 3)})), "ab");
}

TEST(Admission, UrgentBeforePriorityBeforeAge) {
  auto urgent = job("u", 1, 9), high = job("h", 1, 8), old = job("o", 1, 1);
  urgent.urgent = true;
  high.priority = 5;
  EXPECT_EQ(started(snapshot(2, {old, high, urgent})), "uh");
}

TEST(Admission, AGangStartsWholeOrNotAtAll) {
  auto gang = job("a", 2, 1);
  auto groups = gang.demand->groups;
  groups.push_back({.role = NodeRole::worker, .count = 3, .each = {.cpu = 1, .memory_gb = 1, .gpu = {}}});
  gang.demand = std::make_shared<const Demand>("2", "g", std::move(groups));
  EXPECT_EQ(started(snapshot(4, {gang})), "");
  EXPECT_EQ(reason_of(snapshot(4, {gang}), "a"), Reason::exceeds_group);
  EXPECT_EQ(reason_of(snapshot(5, {gang}, {holding(1, 0)}), "a"), Reason::waiting_for_capacity);
  EXPECT_EQ(started(snapshot(5, {gang})), "a");
}

TEST(Admission, EveryWaitSaysWhatIsShort) {
  const auto verdicts = admit(snapshot(4, {job("a", 3, 1)}, {holding(2, 0)}));
  EXPECT_EQ(verdicts.at(0).cause->detail.en, "needs 3 CPU cores, 2 of 4 free");
}

TEST(Admission, ASmallJobMayNotDelayTheHeadOfTheQueue) {
  // The head needs all 4; 3 are held by what ran before it came. One is free, but whoever takes it keeps it.
  const auto s = snapshot(4, {job("a", 4, 10), job("b", 1, 20)}, {holding(3, 0)});
  EXPECT_EQ(started(s), "");
  EXPECT_EQ(reason_of(s, "b"), Reason::waiting_for_turn);
}

TEST(Admission, ASmallJobOvertakesWhereTheHeadLeavesRoom) {
  EXPECT_EQ(started(snapshot(4, {job("a", 3, 10), job("b", 1, 20), job("c", 1, 30)}, {holding(2, 0)})), "b")
      << "beside the head there is room for one core, not for two";
}

TEST(Admission, AJobThatEndsInTimeOvertakes) {
  auto running = holding(3, 0);
  running.ends_by = at(1100);
  auto quick = job("b", 1, 20), slow = job("c", 1, 21);
  quick.time_limit = seconds{100};
  slow.time_limit = seconds{101};
  EXPECT_EQ(started(snapshot(4, {job("a", 4, 10), slow, quick}, {running})), "b");
}

TEST(Admission, AServiceIsNotWaitedFor) {
  auto service = holding(1, 0);
  service.permanent = true;
  const auto s = snapshot(4, {job("a", 3, 10), job("b", 1, 20)}, {service, holding(1, 5)});
  EXPECT_EQ(started(s), "") << "the head takes all that the service leaves";
}

TEST(Admission, AQuotaMakesWaitAndAnotherUserGoesOn) {
  auto s = snapshot(8, {job("a", 2, 1), job("b", 2, 2), job("c", 2, 3, "3")});
  s.quotas["2"].cpu = 3;
  EXPECT_EQ(started(s), "ac");
  EXPECT_EQ(reason_of(s, "b"), Reason::waiting_for_quota);
}

TEST(Admission, AnExpiredQuotaBlocksItsUserOnly) {
  auto s = snapshot(8, {job("a", 2, 1), job("c", 2, 3, "3")});
  s.quotas["2"].end_time = at(999);
  s.quotas["3"].start_time = at(1001);
  EXPECT_EQ(reason_of(s, "a"), Reason::quota_expired);
  EXPECT_EQ(reason_of(s, "c"), Reason::quota_not_yet_valid);
}

TEST(Admission, WhatCanNeverStartIsTold) {
  auto s = snapshot(8, {job("a", 9, 1), job("b", 5, 2)});
  s.quotas["2"].cpu = 4;
  EXPECT_EQ(reason_of(s, "a"), Reason::exceeds_group);
  EXPECT_EQ(reason_of(s, "b"), Reason::exceeds_max_quota);
  auto gone = *s.queue[0];
  gone.demand = demand({.cpu = 1, .memory_gb = 1, .gpu = {}}, "2", "gone");
  s.queue[0] = std::make_shared<const Candidate>(gone);
  EXPECT_EQ(reason_of(s, "a"), Reason::group_unavailable);
}

TEST(Admission, GpusAreGivenOnceAndNamed) {
  auto s = snapshot(8, {job("a", 1, 1), job("b", 1, 2)});
  s.groups["g"].gpus = engines::GpuPool({{.index = 0, .uuid = "GPU-a", .memory_bytes = 1LL << 36}});
  s.groups["g"].capacity.gpu = 1;
  for (auto& each : s.queue) {
    auto with_gpu = *each;
    with_gpu.demand = demand({.cpu = 1, .memory_gb = 1, .gpu = {.count = 1}});
    each = std::make_shared<const Candidate>(std::move(with_gpu));
  }
  const auto verdicts = admit(s);
  ASSERT_TRUE(verdicts[0].start);
  EXPECT_EQ(verdicts[0].gpus.at(0).at(0).uuid, "GPU-a");
  EXPECT_FALSE(verdicts[1].start);
}

/// Those that ask alike share their answer; the answer must still be each one's own.
TEST(Admission, ManyThatAskAlikeAreJudgedAsOneByOne) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const auto alike = demand({.cpu = 1 + static_cast<int>(random() % 3), .memory_gb = 1, .gpu = {}});
    std::vector<Candidate> jobs;
    for (int i = 0; i < 12; ++i) {
      auto each = job("j" + std::to_string(10 + i), 1 + static_cast<int>(random() % 4), i,
                      std::to_string(random() % 3));
      if (random() % 2) each.demand = alike;
      if (random() % 4 == 0) each.time_limit = seconds{static_cast<int>(random() % 100)};
      jobs.push_back(std::move(each));
    }
    auto s = snapshot(6, jobs, {holding(2, 0), holding(1, 5)});
    s.holdings[0].ends_by = at(1050);
    s.quotas["1"].cpu = 3;
    auto apart = s;
    for (auto& each : apart.queue) {
      auto own = *each;
      own.demand = std::make_shared<const Demand>(*own.demand);
      each = std::make_shared<const Candidate>(std::move(own));
    }
    const auto together = admit(s), one_by_one = admit(apart);
    for (std::size_t i = 0; i < together.size(); ++i) {
      ASSERT_EQ(together[i].place, one_by_one[i].place);
      ASSERT_EQ(together[i].start, one_by_one[i].start);
      if (together[i].start) continue;
      ASSERT_EQ(*together[i].cause, *one_by_one[i].cause);
    }
  }
}

/// Small jobs keep arriving for ever, as many as there is room for; a big one must start all the same, and
/// never more runs than there is.
TEST(Admission, TheHeadOfTheQueueIsNeverStarved) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    constexpr int kCapacity = 8;
    Snapshot s = snapshot(kCapacity, {});
    struct Running {
      Holding holding;
      int ends;
    };
    std::vector<Running> running;
    int big_started = -1, next = 0;
    for (int t = 0; t < 400 && big_started < 0; ++t) {
      s.now = at(t);
      std::erase_if(running, [&](const Running& r) { return r.ends <= t; });
      s.holdings.clear();
      for (const auto& r : running) s.holdings.push_back(r.holding);
      s.queue.push_back(std::make_shared<const Candidate>(job("s" + std::to_string(next++),
                                                              1 + static_cast<int>(random() % 3), t,
                                                              std::to_string(random() % 5))));
      if (t == 50) s.queue.push_back(std::make_shared<const Candidate>(job("BIG", kCapacity, t, "9")));
      std::int64_t total = 0;
      for (const auto& verdict : admit(s)) {
        if (!verdict.start) continue;
        auto& chosen = s.queue[verdict.place];
        if (chosen->id == "BIG") big_started = t;
        running.push_back({{.user_id = chosen->demand->user_id,
                            .group_id = "g",
                            .held = chosen->demand->total,
                            .since = s.now,
                            .ends_by = {}},
                           t + 1 + static_cast<int>(random() % 7)});
        chosen.reset();
      }
      std::erase(s.queue, nullptr);
      for (const auto& r : running) total += r.holding.held.cpu;
      ASSERT_LE(total, kCapacity);
    }
    EXPECT_GE(big_started, 50) << "seed " << seed;
  }
}

}  // namespace
}  // namespace lathe::admission
