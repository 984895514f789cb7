#include "http/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lathe::http {
namespace {

using testing::HasSubstr;

TEST(Metrics, WritesTheTextFormat) {
  Exposition out;
  out.metric("lathe_x_total", "counter", "A \\ and\na line.");
  out.sample(3, {{"name", "a\"b\\c\nd"}});
  out.gauge("lathe_y", "Y.", 0.5);
  EXPECT_EQ(out.take(),
            "# HELP lathe_x_total A \\\\ and\\na line.\n# TYPE lathe_x_total counter\n"
            "lathe_x_total{name=\"a\\\"b\\\\c\\nd\"} 3\n"
            "# HELP lathe_y Y.\n# TYPE lathe_y gauge\nlathe_y 0.5\n");
}

TEST(Metrics, CountsCallsByRouteStatusAndTime) {
  Metrics metrics;
  metrics.observe("getMe", 200, 0.0005);
  metrics.observe("getMe", 204, 0.02);
  metrics.observe("getMe", 401, 100);
  metrics.observe("", 404, 0.001);
  metrics.add_collector([](Exposition& out) { out.gauge("lathe_extra", "Extra.", 7); });
  const std::string text = metrics.expose();
  EXPECT_THAT(text, HasSubstr("lathe_http_requests_total{route=\"getMe\",status=\"2xx\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lathe_http_requests_total{route=\"getMe\",status=\"4xx\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lathe_http_requests_total{route=\"none\",status=\"4xx\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{route=\"getMe\",le=\"0.001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{route=\"getMe\",le=\"0.025\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{route=\"getMe\",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("_count{route=\"getMe\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("lathe_extra 7\n"));
}

}  // namespace
}  // namespace lathe::http
