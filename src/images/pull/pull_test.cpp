#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>

#include "images/pull/fetcher.h"
#include "images/pull/public_address.h"
#include "images/pull/remote_name.h"

namespace lathe::images::pull {
namespace {

TEST(RemoteName, IsReadInItsParts) {
  struct Row {
    const char *text, *authority, *repository, *tag;
    bool digest;
  };
  const std::string digest = "@sha256:" + std::string(64, 'a');
  const std::string with_digest = "registry.example/app" + digest,
                    with_both = "registry.example/app:1" + digest;
  const Row rows[] = {
      {"registry.example/app", "registry.example", "app", "latest", false},
      {"Registry.Example:5000/team/app:1.0", "registry.example:5000", "team/app", "1.0", false},
      {"localhost/app:1", "localhost", "app", "1", false},
      {"[::1]:5000/app:1", "[::1]:5000", "app", "1", false},
      {with_digest.c_str(), "registry.example", "app", "", true},
      {with_both.c_str(), "registry.example", "app", "1", true},
  };
  for (const Row& row : rows) {
    const auto name = parse_remote(row.text);
    ASSERT_TRUE(name.ok()) << row.text;
    EXPECT_EQ(name->authority, row.authority);
    EXPECT_EQ(name->repository, row.repository);
    EXPECT_EQ(name->tag, row.tag);
    EXPECT_EQ(name->digest.empty(), !row.digest);
    EXPECT_EQ(parse_remote(name->text())->wanted(), name->wanted());
  }
  for (const char* wrong :
       {"", "app", "app:1", "team/app", "registry.example/", "registry.example/App", "a b.example/app",
        "li:x@registry.example/app", "registry.example:/app", "registry.example:123456/app",
        "https://r.example/app", "registry.example/app:", "registry.example/app:-",
        "registry.example/app@sha256:1", "registry.example/app@", "[::1/app:1", "[]/app", "-r.example/app",
        "registry.example/../app"})
    EXPECT_FALSE(parse_remote(wrong).ok()) << wrong;
}

TEST(PullUrl, IsReadAsOthersReadIt) {
  const auto url = parse_url("HTTPS://Mirror.Example:8443/a/b?c=%20d");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->text(), "https://mirror.example:8443/a/b?c=%20d");
  EXPECT_EQ(parse_url("http://mirror.example")->text(), "http://mirror.example/");
  EXPECT_EQ(parse_url("http://mirror.example?a")->text(), "http://mirror.example/?a");
  for (const char* wrong :
       {"", "mirror.example/a", "ftp://a.example/", "file:///etc/passwd", "https:a.example",
        "https://li@a.example/", "https://a.example/a b", "https://a.example/#x",
        "https://a.example\\@b.example/", "https:///a", "https://a.example:b/", "//a.example"})
    EXPECT_FALSE(parse_url(wrong).ok()) << wrong;
}

TEST(PullRules, SayWhoMayBeAsked) {
  const Rules open;
  EXPECT_TRUE(open.may_pull_from("registry.example"));
  EXPECT_FALSE(open.any_address("registry.example", true));
  const Rules closed{{"registry.example", "Other.example:5000", "[fd00::1]", "wide.example:*"},
                     {"10.0.0.7:5000", "10.0.0.8"}};
  for (const char* allowed :
       {"registry.example", "registry.example:443", "other.example:5000", "10.0.0.7:5000", "[fd00::1]",
        "[fd00::1]:443", "wide.example", "wide.example:5000", "10.0.0.8:80"}) {
    EXPECT_TRUE(closed.may_pull_from(allowed)) << allowed;
    EXPECT_TRUE(closed.any_address(allowed, true)) << allowed;
  }
  for (const char* refused :
       {"other.example", "other.example:5001", "10.0.0.7", "x.registry.example", "registry.example:80",
        "registry.example:5000", "[fd00::1]:5000", "10.0.0.8:5000", "10.0.0.8:443"})
    EXPECT_FALSE(closed.may_pull_from(refused)) << refused;
  EXPECT_TRUE(closed.is_insecure("10.0.0.7:5000"));
  EXPECT_FALSE(closed.is_insecure("registry.example"));
  // A host without a port is at the port of the scheme that the list is for.
  EXPECT_TRUE(closed.is_insecure("10.0.0.8"));
  EXPECT_TRUE(closed.any_address("10.0.0.8", false));
  EXPECT_FALSE(closed.any_address("10.0.0.8", true));
  EXPECT_FALSE(closed.any_address("registry.example", false));
}

bool is_public_text(const char* text) {
  sockaddr_storage storage{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
    v4->sin_family = AF_INET;
  else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
    v6->sin6_family = AF_INET6;
  return is_public(reinterpret_cast<const sockaddr&>(storage));
}

TEST(PublicAddress, IsNoneOfThisMachineOrItsNetworks) {
  for (const char* address :
       {"8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "223.255.255.254", "2600::1",
        "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"})
    EXPECT_TRUE(is_public_text(address)) << address;
  for (const char* address : {"0.0.0.0",
                              "10.1.2.3",
                              "100.64.0.1",
                              "127.0.0.1",
                              "127.255.0.1",
                              "169.254.169.254",
                              "172.16.0.1",
                              "172.31.255.255",
                              "192.0.2.1",
                              "192.168.0.1",
                              "198.18.0.1",
                              "198.51.100.1",
                              "203.0.113.1",
                              "224.0.0.1",
                              "255.255.255.255",
                              "::",
                              "::1",
                              "fe80::1",
                              "fc00::1",
                              "fd12::1",
                              "ff02::1",
                              "2001::1",
                              "2001:db8::1",
                              "2002:7f00:1::",
                              "::ffff:127.0.0.1",
                              "::ffff:10.0.0.1",
                              "64:ff9b::7f00:1",
                              "64:ff9b:1::1",
                              "::127.0.0.1"})
    EXPECT_FALSE(is_public_text(address)) << address;
}

TEST(Fetcher, RefusesWhatIsNotPublic) {
  const auto fetcher = Fetcher::make();
  ASSERT_TRUE(fetcher.ok()) << fetcher.error().describe(Language::en);
  const auto sink = [](const Fetcher::Head&, std::string_view) -> Result<void> { return {}; };
  const auto got = (*fetcher)->get({"http://127.0.0.1:9/", {}, false}, sink, [] { return true; });
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Code::permission_denied);
  const auto tried = (*fetcher)->get({"http://127.0.0.1:9/", {}, true}, sink, [] { return true; });
  ASSERT_FALSE(tried.ok());
  EXPECT_EQ(tried.error().code, Code::unavailable);
}

}  // namespace
}  // namespace lathe::images::pull
