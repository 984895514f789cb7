#include "gateway/h2_call.h"

#include <gtest/gtest.h>

namespace lathe::gateway {
namespace {

using namespace std::chrono_literals;

TEST(GrpcTimeout, IsReadInEveryUnit) {
  EXPECT_EQ(grpc_timeout("1H"), 1h);
  EXPECT_EQ(grpc_timeout("2M"), 2min);
  EXPECT_EQ(grpc_timeout("30S"), 30s);
  EXPECT_EQ(grpc_timeout("250m"), 250ms);
  EXPECT_EQ(grpc_timeout("99999999u"), 99'999'999us);
  EXPECT_EQ(grpc_timeout("0n"), 0ns);
  EXPECT_GT(grpc_timeout("99999999H"), 24h) << "no overflow";
  for (const char* wrong : {"", "S", "1", "1s", "-1S", "+1S", " 1S", "1 S", "1.5S", "123456789S", "1SS"})
    EXPECT_EQ(grpc_timeout(wrong), std::nullopt) << wrong;
}

TEST(GrpcTimeout, IsSaidAsExactlyAsItCanBe) {
  EXPECT_EQ(grpc_timeout_text(99'999'999ns), "99999999n");
  EXPECT_EQ(grpc_timeout_text(100ms), "100000u");
  EXPECT_EQ(grpc_timeout_text(30s), "30000000u");
  EXPECT_EQ(grpc_timeout_text(10min), "600000m");
  EXPECT_EQ(grpc_timeout_text(-1s), "0n");
  EXPECT_EQ(grpc_timeout(grpc_timeout_text(24h * 365)), 24h * 365);
}

}  // namespace
}  // namespace lathe::gateway
