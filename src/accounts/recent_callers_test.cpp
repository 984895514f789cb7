#include "accounts/recent_callers.h"

#include <gtest/gtest.h>

namespace lathe::accounts {
namespace {

TEST(RecentCallers, KnowThemUntilTheirTimeOrAnyChange) {
  RecentCallers recent;
  const Time start{std::chrono::seconds{100}}, until = start + std::chrono::seconds{30};
  EXPECT_FALSE(recent.find("Bearer a", start, 1));
  recent.put("Bearer a", {"7", "li", true}, until, 1);
  const auto found = recent.find("Bearer a", start, 1);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->user_id, "7");
  EXPECT_EQ(found->user_name, "li");
  EXPECT_TRUE(found->admin);
  EXPECT_FALSE(recent.find("Bearer A", start, 1));
  EXPECT_FALSE(recent.find("Bearer a ", start, 1));
  EXPECT_TRUE(recent.find("Bearer a", until - Duration{1}, 1));
  EXPECT_FALSE(recent.find("Bearer a", until, 1));
  EXPECT_FALSE(recent.find("Bearer a", start, 2)) << "a token has been forgotten since";
  recent.put("Bearer a", {"7", "li", false}, until, 2);
  EXPECT_FALSE(recent.find("Bearer a", start, 2)->admin);
}

TEST(RecentCallers, AreNotTooMany) {
  RecentCallers recent;
  const Time start{std::chrono::seconds{100}}, until = start + std::chrono::seconds{30};
  int known = 0;
  constexpr int kMany = 100'000;
  for (int i = 0; i < kMany; ++i) recent.put(std::to_string(i), {"7", "li", false}, until, 1);
  for (int i = 0; i < kMany; ++i) known += recent.find(std::to_string(i), start, 1).has_value();
  EXPECT_LE(known, 16 * 1024);
  EXPECT_TRUE(recent.find(std::to_string(kMany - 1), start, 1));
}

}  // namespace
}  // namespace lathe::accounts
