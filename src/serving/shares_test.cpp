#include "serving/shares.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/json.h"

namespace lathe::serving {
namespace {

store::VersionRow version(std::string id, std::int64_t rate, std::int64_t desired = 1) {
  store::VersionRow row;
  row.id = std::move(id);
  row.rate = rate;
  row.desired = desired;
  row.max_replicas = 10;
  row.rolled_out = true;
  return row;
}

std::vector<std::int64_t> rates(const std::vector<store::VersionRow>& versions) {
  std::vector<std::int64_t> out;
  for (const auto& v : versions) out.push_back(v.rate);
  return out;
}
using Rates = std::vector<std::int64_t>;

std::vector<Json> list(std::string_view text) {
  std::vector<Json> out;
  const Json parsed = json::parse(text).value();
  for (const auto& item : parsed.get_array()) out.push_back(item);
  return out;
}

TEST(Shares, AreReadInBothForms) {
  for (const char* text :
       {R"([{"id": "a", "rate": 80}, {"id": "b", "rate": "20"}])", R"([{"a": 80, "b": 20}])",
        R"([{"modelServerVersionId": "a", "rate": 80}, {"b": 20}])"}) {
    const auto shares = read_shares(list(text), "rates");
    ASSERT_TRUE(shares.ok()) << text;
    ASSERT_EQ(shares->size(), 2U) << text;
    EXPECT_EQ((*shares)[0].id, "a");
    EXPECT_EQ((*shares)[0].rate, 80);
    EXPECT_EQ((*shares)[1].rate, 20);
  }
}

TEST(Shares, WhatIsWrongIsNamed) {
  for (const auto& [text, field] :
       {std::pair{R"([7])", "rates[0]"}, std::pair{R"([{"id": "a", "rate": 101}])", "rates[0].rate"},
        std::pair{R"([{"rate": 5}])", "rates[0].id"}, std::pair{R"([{}])", "rates[0]"},
        std::pair{R"([{"a": "x"}])", "rates[0]"}}) {
    const auto shares = read_shares(list(text), "rates");
    ASSERT_FALSE(shares.ok()) << text;
    EXPECT_EQ(shares.error().violations[0].field, field);
  }
}

TEST(Shares, ANewVersionTakesEverythingOrTheRestOfTheOnlyOther) {
  std::vector all{version("a", 100), version("b", 100)};
  ASSERT_TRUE(settle_shares(all, 1, {}, "v").ok());
  EXPECT_EQ(rates(all), (Rates{0, 100}));
  all = {version("a", 0), version("b", 100), version("c", 10)};
  ASSERT_TRUE(settle_shares(all, 1, {}, "v").ok());
  EXPECT_EQ(rates(all), (Rates{0, 90, 10}));
  all = {version("a", 100), version("b", 0)};
  ASSERT_TRUE(settle_shares(all, 1, {}, "v").ok());
  EXPECT_EQ(rates(all), (Rates{100, 0}));
}

TEST(Shares, WhereItIsNotClearItMustBeSaid) {
  std::vector all{version("a", 50), version("b", 50), version("c", 10)};
  const auto unclear = settle_shares(all, 1, {}, "v");
  ASSERT_FALSE(unclear.ok());
  EXPECT_EQ(unclear.error().violations[0].field, "v.rates");
  ASSERT_TRUE(settle_shares(all, 1, {{"a", 40}}, "v").ok());
  EXPECT_EQ(rates(all), (Rates{40, 50, 10}));
  EXPECT_FALSE(settle_shares(all, 1, {{"c", 40}}, "v").ok()) << "the new one's share is its rate";
}

TEST(Shares, ARolloutBeginsWithWhatTheOthersBear) {
  std::vector all{version("a", 0, 6), version("b", 100, 1)};
  begin_rollout(all, {100, 0}, true);
  EXPECT_EQ(all[0].desired, 6);
  EXPECT_EQ(all[1].desired, 6);
  EXPECT_FALSE(all[1].rolled_out);
  EXPECT_TRUE(all[0].rolled_out);
}

}  // namespace
}  // namespace lathe::serving
