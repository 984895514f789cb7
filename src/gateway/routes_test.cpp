#include "gateway/routes.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace lathe::gateway {
namespace {

ServiceRoute service(std::vector<std::pair<int, int>> rates_and_replicas) {
  ServiceRoute route{.id = "s", .name = "llm", .owner = "2", .versions = {}, .unavailable = {}};
  for (std::size_t v = 0; v < rates_and_replicas.size(); ++v) {
    VersionRoute version{
        .id = "v" + std::to_string(v), .rate = rates_and_replicas[v].first, .path = "", .upstreams = {}};
    for (int r = 0; r < rates_and_replicas[v].second; ++r)
      version.upstreams.push_back(
          {version.id + "r" + std::to_string(r), "127.0.0.1", static_cast<std::uint16_t>(9000 + r)});
    route.versions.push_back(std::move(version));
  }
  return route;
}

class Routes : public testing::Test {
 protected:
  Service& set(std::vector<std::pair<int, int>> rates_and_replicas) {
    registry_.set({service(std::move(rates_and_replicas))});
    return *registry_.table()->find("llm");
  }
  static Service::Choice choose(Service& service, const Target* failed = nullptr) {
    return service.choose(std::chrono::steady_clock::now(), failed);
  }
  Registry registry_;
};

TEST_F(Routes, SharesAreExactOverEveryCycle) {
  Service& llm = set({{90, 1}, {10, 1}});
  int canary = 0;
  for (int i = 0; i < 1'000'000; ++i) canary += choose(llm).version->id == "v1";
  EXPECT_EQ(canary, 100'000);
}

TEST_F(Routes, ASmallShareIsSpreadOut) {
  std::string order;
  for (int i = 0; i < 8; ++i) order += choose(set({{75, 1}, {25, 1}})).version->id[1];
  EXPECT_EQ(order, "00100010") << "across tables too";
}

TEST_F(Routes, OneServiceChangesAndTheOthersStay) {
  auto other = service({{100, 1}});
  other.id = "o";
  other.name = "other";
  other.versions[0].id = "ov";
  other.versions[0].upstreams[0].id = "or";
  registry_.set({service({{90, 1}, {10, 1}}), other});
  const auto before = registry_.table();
  std::vector<std::string> drained;
  registry_.on_drained([&](const std::string& id) { drained.push_back(id); });
  auto held = choose(*before->find("llm"));
  ASSERT_EQ(held.version->id, "v0");
  registry_.set_one(service({{0, 0}, {100, 1}}));
  const auto after = registry_.table();
  EXPECT_EQ(after->find("other"), before->find("other"));
  EXPECT_EQ(choose(*after->find("other")).kind, Service::Choice::Kind::chosen);
  EXPECT_EQ(choose(*before->find("llm")).kind, Service::Choice::Kind::stale);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(choose(*after->find("llm")).version->id, "v1");
  EXPECT_EQ(registry_.activity("v0r0").in_flight, 1u);
  EXPECT_TRUE(drained.empty());
  held = {};
  EXPECT_EQ(drained, (std::vector<std::string>{"v0r0"}));

  auto renamed = service({{100, 1}});
  renamed.name = "renamed";
  registry_.set_one(renamed);
  EXPECT_EQ(registry_.table()->find("llm"), nullptr);
  EXPECT_NE(registry_.table()->find("renamed"), nullptr);
  EXPECT_EQ(registry_.table()->services().size(), 2u);
}

TEST_F(Routes, AVersionWithoutUpstreamsGetsNothing) {
  Service& llm = set({{50, 0}, {50, 1}});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(choose(llm).version->id, "v1");
  EXPECT_EQ(choose(set({{100, 0}})).kind, Service::Choice::Kind::none);
  EXPECT_EQ(registry_.table()->find("other"), nullptr);
}

TEST_F(Routes, TheUpstreamWithTheFewestRequestsIsNext) {
  Service& llm = set({{100, 3}});
  std::vector<Service::Choice> held;
  for (int i = 0; i < 9; ++i) held.push_back(choose(llm));
  for (const auto& one : registry_.load().upstreams) EXPECT_EQ(one.in_flight, 3u) << one.upstream_id;
  held.front().lease.begins_answer();
  held.erase(held.begin());  // whichever that was is now the least loaded
  EXPECT_EQ(choose(llm).lease->in_flight.now(), 3u);
}

TEST_F(Routes, WhoLeftARequestUnansweredIsNotPreferredForIt) {
  Service& llm = set({{100, 2}});
  Target* hanging = nullptr;
  {
    const auto given_up = choose(llm);
    hanging = given_up.lease.get();
  }
  EXPECT_EQ(hanging->in_flight.now(), 0u);
  for (int i = 0; i < 4; ++i) {
    auto choice = choose(llm);
    EXPECT_NE(choice.lease.get(), hanging);
    choice.lease.begins_answer();
  }
  const auto soon = std::chrono::steady_clock::now(), later = soon + std::chrono::minutes{1};
  EXPECT_EQ(hanging->load(soon), 1u);
  EXPECT_EQ(hanging->load(later), 0u) << "it gets its chance again";
  hanging->begins_answer(std::chrono::seconds{1});
  EXPECT_EQ(hanging->load(soon), 0u) << "it answers";
}

TEST_F(Routes, AnUpstreamThatFailedIsTheLastResort) {
  Service& llm = set({{100, 2}});
  const auto first = choose(llm);
  for (int i = 0; i < 4; ++i) EXPECT_NE(choose(llm, first.lease.get()).lease.get(), first.lease.get());
  first.lease.get()->shun(std::chrono::steady_clock::now() + std::chrono::hours{1});
  for (int i = 0; i < 4; ++i) EXPECT_NE(choose(llm).lease.get(), first.lease.get());
  Service& alone = set({{100, 1}});
  EXPECT_EQ(choose(alone).kind, Service::Choice::Kind::chosen);
}

TEST_F(Routes, OneThatCannotBeReachedAndIsAloneIsKnown) {
  const auto now = std::chrono::steady_clock::now();
  Service& alone = set({{100, 1}, {0, 1}});
  const auto* first = choose(alone).lease.get();
  EXPECT_FALSE(alone.has_only(first, now)) << "it can be reached";
  choose(alone).lease.get()->shun(now + std::chrono::hours{1});
  EXPECT_TRUE(alone.has_only(first, now));
  EXPECT_FALSE(alone.has_only(first, now + std::chrono::hours{2}));
  EXPECT_FALSE(set({{100, 2}}).has_only(first, now));
}

TEST_F(Routes, CountersLiveOnInTheNextTable) {
  { const auto choice = choose(set({{100, 1}})); }
  set({{100, 2}});
  const auto load = registry_.load();
  EXPECT_EQ(load.upstreams.at(0).requests, 1u);
  EXPECT_EQ(load.upstreams.at(0).in_flight, 0u);
  EXPECT_EQ(load.versions.at(0).duration.total(), 1u);
}

TEST_F(Routes, AnOldTableGivesNothingOnceThereIsANewOne) {
  set({{100, 1}});
  const auto old = registry_.table();
  set({{100, 1}});
  EXPECT_EQ(choose(*old->find("llm")).kind, Service::Choice::Kind::stale);
}

TEST_F(Routes, TablesAreReadWhileTheyAreReplaced) {
  std::atomic<bool> over{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      while (!over) EXPECT_LE(registry_.table()->services().size(), 1u);
    });
  for (int i = 0; i < 1000; ++i) set({{100, 1 + i % 2}});
  over = true;
  for (auto& reader : readers) reader.join();
}

TEST(Level, IntegratesOverTime) {
  Level level;
  const Moment start{std::chrono::seconds{100}};
  level.enter(start);
  level.enter(start + std::chrono::seconds{2});
  level.leave(start + std::chrono::seconds{3});
  EXPECT_DOUBLE_EQ(level.seconds(start + std::chrono::seconds{5}), 2 + 2 + 2);
  EXPECT_EQ(level.now(), 1u);
}

TEST(TimeCounts, CountsEachTimeInItsBucket) {
  TimeCounts counts;
  for (const int milliseconds : {1, 2, 200'000}) counts.add(std::chrono::milliseconds{milliseconds});
  Times times;
  counts.add_to(times);
  EXPECT_EQ(times.counts.front(), 1u);
  EXPECT_EQ(times.counts.at(1), 1u);
  EXPECT_EQ(times.counts.back(), 1u);
  EXPECT_EQ(times.total(), 3u);
  EXPECT_DOUBLE_EQ(times.seconds, 200.003);
}

}  // namespace
}  // namespace lathe::gateway
