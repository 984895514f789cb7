#include "app/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "app/data_directory.h"
#include "db/test_database.h"

namespace lathe::app {
namespace {

using testing::HasSubstr;

TEST(Config, ReadsAFileWithCommentsOverTheDefaults) {
  const auto config = parse_config(R"({
    // a comment
    "listen": "[::1]:9", "tls": {"certificate": "c.pem", "key": "k.pem"},
    "sessions": {"idle": "90m"}, "limits": {"maxWorkers": 8, "idleTimeout": "5s"}, /* and another */
    "drainTimeout": "250ms", "jobs": {"network": "none"}, "audit": {"retention": "90d"},
  })");
  ASSERT_TRUE(config.ok()) << config.error().describe(Language::en);
  EXPECT_EQ(config->listen, "[::1]:9");
  EXPECT_EQ(config->tls->key, "k.pem");
  EXPECT_EQ(config->sessions.idle, std::chrono::minutes{90});
  EXPECT_EQ(config->sessions.absolute, std::chrono::hours{24 * 30});
  EXPECT_EQ(config->limits.max_workers, 8);
  EXPECT_EQ(config->limits.idle_timeout, std::chrono::seconds{5});
  EXPECT_EQ(config->limits.max_queued, http::Limits{}.max_queued);
  EXPECT_EQ(config->drain_timeout, Duration{250});
  EXPECT_EQ(config->jobs.network, "none");
  EXPECT_EQ(config->audit.retention, std::chrono::hours{24 * 90});
  EXPECT_EQ(parse_config("{}")->audit.retention, std::chrono::hours{24 * 365});
  EXPECT_EQ(parse_config(R"({"audit": {"retention": "0s"}})")->audit.retention, Duration{0});
}

TEST(Config, ReadsTheGatewaysLimits) {
  const auto config = parse_config(R"({"gateway": {"connectTimeout": "500ms", "firstByteTimeout": "20m",
    "idleTimeout": "1m", "totalTimeout": "0s", "maxModelBody": 1048576}})");
  ASSERT_TRUE(config.ok()) << config.error().describe(Language::en);
  EXPECT_EQ(config->gateway.connect_timeout, Duration{500});
  EXPECT_EQ(config->gateway.first_byte_timeout, std::chrono::minutes{20});
  EXPECT_EQ(config->gateway.idle_timeout, std::chrono::minutes{1});
  EXPECT_EQ(config->gateway.total_timeout, Duration{0});
  EXPECT_EQ(config->gateway.max_model_body, 1u << 20);
  EXPECT_EQ(parse_config("{}")->gateway.first_byte_timeout, gateway::Options{}.first_byte_timeout);
  const auto wrong = parse_config(
      R"({"gateway": {"connectTimeout": "0s", "idleTimeout": "soon", "maxModelBody": 0, "maxTime": "1s"}})");
  ASSERT_FALSE(wrong.ok());
  std::vector<std::string> fields;
  for (const auto& violation : wrong.error().violations) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::UnorderedElementsAre("gateway.connectTimeout", "gateway.idleTimeout",
                                                    "gateway.maxModelBody", "gateway.maxTime"));
}

TEST(Config, NamesEveryKeyThatIsWrong) {
  const auto config = parse_config(
      R"({"lissten": 1, "log": {"levl": "info", "level": "loud"}, "sessions": {"idle": "5 weeks", "absolute": "-1s"}})");
  ASSERT_FALSE(config.ok());
  std::vector<std::string> fields;
  for (const auto& violation : config.error().violations) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::UnorderedElementsAre("lissten", "log.levl", "log.level", "sessions.idle",
                                                    "sessions.absolute"));
  EXPECT_THAT(parse_config("{\"listen\" 1}").error().message.en, HasSubstr("not valid JSON"));
  EXPECT_FALSE(parse_config("{} {}").ok());
  EXPECT_FALSE(parse_config("[]").ok());
}

TEST(Config, ReadsAddresses) {
  const auto v4 = parse_address("127.0.0.1:8080").value();
  EXPECT_EQ(v4.host, "127.0.0.1");
  EXPECT_EQ(v4.port, 8080);
  const auto v6 = parse_address("[::1]:0").value();
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(url_of({}, v6, 81), "http://[::1]:81");
  EXPECT_EQ(url_of({.public_url = "https://lathe.example"}, v4, 81), "https://lathe.example");
  for (const char* wrong :
       {"", ":", "8080", "host", "host:", ":80", "host:port", "host:65536", "::1:80", "h:1x"})
    EXPECT_FALSE(parse_address(wrong).ok()) << wrong;
}

TEST(DataDirectory, IsMadeForItsOwnerAndLocked) {
  const db::TestFolder folder;
  const std::string path = folder.file("a/b");
  {
    const auto data = DataDirectory::open(path);
    ASSERT_TRUE(data.ok()) << data.error().describe(Language::en);
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms::owner_all);
    EXPECT_EQ(DataDirectory::open(path).error().code, Code::failed_precondition);
  }
  EXPECT_TRUE(DataDirectory::open(path).ok());
  EXPECT_FALSE(DataDirectory::open("").ok());
  EXPECT_FALSE(DataDirectory::open("/proc/no/such").ok());
}

}  // namespace
}  // namespace lathe::app
