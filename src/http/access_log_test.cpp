#include "http/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

#include "http/testing.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class AccessLogTest : public ::testing::Test {
 protected:
  void SetUp() override { ::testing::internal::CaptureStderr(); }
  void TearDown() override {
    if (!ended_) written();
  }
  std::string written() {
    ended_ = true;
    return ::testing::internal::GetCapturedStderr();
  }

 private:
  bool ended_ = false;
};

TEST_F(AccessLogTest, WritesALineARequest) {
  {
    Loop loop;
    auto& log = loop.local<AccessLog>();
    log.add({.method = "GET",
             .path = "/serve/a/b",
             .status = 200,
             .bytes = 18'446'744'073'709'551'615U,
             .taken = 1'960us,
             .peer = "127.0.0.1",
             .id = "an-id",
             .words = " service=1 version=2",
             .cut = true});
    log.add({.method = "", .path = "-", .status = 400, .taken = 49us, .peer = "::1", .id = "x"});
    log.add({.method = "POST",
             .path = "/p.S/M",
             .status = 200,
             .grpc_status = -1,
             .taken = 61s,
             .peer = "::1",
             .id = "y"});
  }
  const std::string time = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} info )";
  EXPECT_TRUE(std::regex_match(
      written(),
      std::regex(
          time +
          R"(GET /serve/a/b 200 18446744073709551615 2\.0ms 127\.0\.0\.1 an-id service=1 version=2 \(cut\)\n)" +
          time + R"(- - 400 0 0\.0ms ::1 x\n)" + time +
          R"(POST /p\.S/M 200 grpc-status=-1 61000\.0ms ::1 y\n)")));
}

TEST_F(AccessLogTest, KeepsNoLineForLong) {
  Loop loop;
  loop.local<AccessLog>().add({.method = "GET", .path = "/only", .status = 200, .peer = "-", .id = "x"});
  std::string seen;
  loop.call_at(loop.now() + 300ms, [&] {
    seen = written();
    loop.stop();
  });
  loop.run();
  EXPECT_THAT(seen, HasSubstr("GET /only 200"));
}

TEST_F(AccessLogTest, WritesManyWholeAndInOrder) {
  constexpr int kLines = 5000;
  {
    Loop loop;
    for (int i = 0; i < kLines; ++i) {
      const std::string path = "/" + std::to_string(i) + std::string(i % 1000, 'x');
      loop.local<AccessLog>().add({.method = "GET", .path = path, .status = 200, .peer = "p", .id = "i"});
    }
  }
  const std::string all = written();
  std::size_t at = 0;
  for (int i = 0; i < kLines; ++i) {
    const auto end = all.find('\n', at);
    ASSERT_NE(end, std::string::npos) << i;
    ASSERT_THAT(all.substr(at, end - at), HasSubstr(" info GET /" + std::to_string(i) +
                                                    std::string(i % 1000, 'x') + " 200 0 0.0ms p i"));
    at = end + 1;
  }
  EXPECT_EQ(at, all.size());
}

TEST_F(AccessLogTest, CutsWhatIsTooLong) {
  {
    Loop loop;
    const std::string path(1'000'000, 'x');
    for (int i = 0; i < 20; ++i)
      loop.local<AccessLog>().add(
          {.method = path, .path = path, .status = 200, .peer = path, .id = path, .words = path});
  }
  const std::string all = written();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 20);
  EXPECT_LT(all.size(), 20U * 48 * 1024);
}

TEST_F(AccessLogTest, IsWrittenWhenTheServerEnds) {
  {
    testing::TestServer server({}, true);
    testing::Peer peer(server.port());
    for (int i = 0; i < 10; ++i) {
      peer.send("GET /hello?" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-" +
                std::to_string(i) + ".\r\n\r\n");
      ASSERT_EQ(peer.answer().status, 200);
    }
    peer.send("nonsense\r\n\r\n");
    ASSERT_EQ(peer.answer().status, 400);
  }
  const std::string all = written();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 11) << all;
  for (int i = 0; i < 10; ++i) EXPECT_THAT(all, HasSubstr("id-" + std::to_string(i) + ".\n"));
  EXPECT_THAT(all, HasSubstr(" - - 400 "));
}

}  // namespace
}  // namespace lathe::http
