#include "gateway/routes.h"

#include <gtest/gtest.h>

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

TEST(Routes, SharesAreExactOverEveryCycle) {
  const Table table({service({{90, 1}, {10, 1}})}, nullptr);
  int canary = 0;
  for (int i = 0; i < 1'000'000; ++i) canary += table.find("llm")->choose()->version->id == "v1";
  EXPECT_EQ(canary, 100'000);
}

TEST(Routes, ASmallShareIsSpreadOut) {
  const Table table({service({{75, 1}, {25, 1}})}, nullptr);
  std::string order;
  for (int i = 0; i < 8; ++i) order += table.find("llm")->choose()->version->id[1];
  EXPECT_EQ(order, "00100010");
}

TEST(Routes, AVersionWithoutUpstreamsGetsNothing) {
  const Table table({service({{50, 0}, {50, 1}})}, nullptr);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(table.find("llm")->choose()->version->id, "v1");
  EXPECT_FALSE(Table({service({{100, 0}})}, nullptr).find("llm")->choose());
  EXPECT_EQ(table.find("other"), nullptr);
}

TEST(Routes, TheUpstreamWithTheFewestRequestsIsNext) {
  const Table table({service({{100, 3}})}, nullptr);
  std::vector<Service::Choice> held;
  for (int i = 0; i < 9; ++i) held.push_back(*table.find("llm")->choose());
  for (const auto& [id, target] : table.targets()) EXPECT_EQ(target->in_flight, 3u) << id;
  held.erase(held.begin());  // whichever that was is now the least loaded
  const auto next = table.find("llm")->choose();
  EXPECT_EQ(next->lease->in_flight, 3u);
}

TEST(Routes, CountersLiveOnInTheNextTable) {
  const Table first({service({{100, 1}})}, nullptr);
  { const auto choice = first.find("llm")->choose(); }
  const Table second({service({{100, 2}})}, &first);
  EXPECT_EQ(second.targets().at("v0r0")->requests, 1u);
  EXPECT_EQ(second.targets().at("v0r0")->in_flight, 0u);
}

}  // namespace
}  // namespace lathe::gateway
