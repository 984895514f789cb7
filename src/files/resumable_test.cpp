#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "files/testing.h"
#include "files/tus.h"

namespace lathe::files {
namespace {

using testing::Platform;
using testing::Reply;
using testing::TextBody;
using HeaderList = std::vector<std::pair<std::string, std::string>>;

class ResumableTest : public ::testing::Test {
 protected:
  Reply create(const std::string& length, HeaderList more = {}, http::BodyReader* body = nullptr) {
    HeaderList headers{{"Tus-Resumable", "1.0.0"}, {"Upload-Length", length}};
    if (more.empty()) more = {{"Upload-Metadata", "path YS9iLnR4dA=="}};  // a/b.txt
    headers.insert(headers.end(), more.begin(), more.end());
    Reply reply = p_.send("POST", "/api/v1/uploads", "2", nullptr, headers, body);
    url_ = reply.headers.get("location");
    return reply;
  }
  Reply append(const std::string& offset, std::string bytes, bool breaks = false, HeaderList more = {}) {
    HeaderList headers{{"Tus-Resumable", "1.0.0"},
                       {"Upload-Offset", offset},
                       {"Content-Type", "application/offset+octet-stream"}};
    headers.insert(headers.end(), more.begin(), more.end());
    TextBody body(std::move(bytes), 700, breaks);
    return p_.send("PATCH", url_, "2", nullptr, headers, &body);
  }
  std::string offset() {
    return std::string(
        p_.send("HEAD", url_, "2", nullptr, {{"Tus-Resumable", "1.0.0"}}).headers.get("upload-offset"));
  }
  Platform p_;
  std::string url_;
};

TEST_F(ResumableTest, ArrivesInPieces) {
  const auto created = create("10");
  EXPECT_EQ(created.status, 201);
  EXPECT_FALSE(created.headers.get("upload-expires").empty());
  EXPECT_EQ(append("0", "01234").status, 204);
  EXPECT_EQ(offset(), "5");
  EXPECT_EQ(p_.content("2", "a/b.txt"), "<404>");
  const auto again = append("3", "34");
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.headers.get("upload-offset"), "5");
  EXPECT_EQ(append("5", "56789more").status, 413);
  EXPECT_EQ(offset(), "5");
  EXPECT_EQ(append("5", "56789").status, 204);
  EXPECT_EQ(p_.content("2", "a/b.txt"), "0123456789");
  EXPECT_EQ(offset(), "10");
  EXPECT_EQ(p_.send("GET", url_, "2").json.at("state"), "complete");
  EXPECT_TRUE(std::filesystem::is_empty(p_.host("users/.staging")));
  EXPECT_EQ(p_.files().count_now("2")->bytes, 10);
}

TEST_F(ResumableTest, GoesOnAfterTheConnectionOrTheServerEnded) {
  create("5000");
  EXPECT_EQ(append("0", std::string(2500, 'a'), true).status, 499);
  EXPECT_EQ(offset(), "2500");
  // Bytes that were written but never promised are overwritten.
  const std::string id = url_.substr(url_.rfind('/') + 1);
  std::ofstream(p_.host("users/.staging/tus-" + id + "/data"), std::ios::app) << "garbage";
  p_.start();
  EXPECT_EQ(offset(), "2500");
  EXPECT_EQ(append("2500", std::string(2500, 'b')).status, 204);
  EXPECT_EQ(p_.content("2", "a/b.txt"), std::string(2500, 'a') + std::string(2500, 'b'));
}

TEST_F(ResumableTest, ChecksWhatWasPromised) {
  create("11");
  const HeaderList wrong{{"Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="}};
  EXPECT_EQ(append("0", "hello world", false, wrong).status, 460);
  EXPECT_EQ(offset(), "0");
  EXPECT_EQ(append("0", "x", false, {{"Upload-Checksum", "crc32 AAAA"}}).status, 400);
  const HeaderList right{{"Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="}};
  EXPECT_EQ(append("0", "hello world", false, right).status, 204);
  EXPECT_EQ(p_.content("2", "a/b.txt"), "hello world");
}

TEST_F(ResumableTest, CreatesWithTheFirstBytes) {
  TextBody body("hello");
  const auto reply = create("5",
                            {{"Upload-Metadata", "filename bmV3LnR4dA==,currentPath L2Rpcg==,public"},
                             {"Content-Type", "application/offset+octet-stream"}},
                            &body);
  EXPECT_EQ(reply.status, 201);
  EXPECT_EQ(reply.headers.get("upload-offset"), "5");
  EXPECT_EQ(p_.content("2", "dir/new.txt"), "hello");
  EXPECT_EQ(create("0").status, 201);
  EXPECT_EQ(p_.content("2", "a/b.txt"), "");
}

TEST_F(ResumableTest, RefusesWhatIsWrong) {
  EXPECT_EQ(p_.send("POST", "/api/v1/uploads", "2").status, 412);
  EXPECT_EQ(create("-1").status, 400);
  EXPECT_EQ(create("x").status, 400);
  EXPECT_EQ(create("1", {{"Upload-Metadata", "path Li4veA=="}}).status, 400);  // ../x
  EXPECT_EQ(create("1", {{"Upload-Metadata", "path !!!"}}).status, 400);
  EXPECT_EQ(create("1", {{"Upload-Metadata", ""}}).status, 400);
  EXPECT_EQ(create("1", {{"Upload-Metadata", "path YQ==,userId Mw=="}}).status, 403);
  EXPECT_EQ(create("3").status, 201);
  EXPECT_EQ(p_.send("PATCH", url_, "2", nullptr, {{"Tus-Resumable", "1.0.0"}}).status, 415);
  EXPECT_EQ(p_.send("GET", url_, "3").status, 404);
  EXPECT_EQ(p_.send("GET", url_, "1").status, 200);
  EXPECT_EQ(p_.send("DELETE", url_, "3", nullptr, {{"Tus-Resumable", "1.0.0"}}).status, 404);
  EXPECT_EQ(p_.send("DELETE", url_, "2", nullptr, {{"Tus-Resumable", "1.0.0"}}).status, 204);
  EXPECT_EQ(p_.send("GET", url_, "2").status, 404);
  EXPECT_TRUE(std::filesystem::is_empty(p_.host("users/.staging")));
  const auto options = p_.send("OPTIONS", "/api/v1/uploads", "");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.get("tus-version"), "1.0.0");
}

TEST_F(ResumableTest, CountsAgainstTheQuotaFromTheStart) {
  ASSERT_EQ(p_.send("PUT", "/api/v1/users/2/quota", "1", {{"storageBytes", 1000}}).status, 200);
  EXPECT_EQ(create("1001").status, 507);
  EXPECT_EQ(create("600").status, 201);
  EXPECT_EQ(create("600").status, 507);
  p_.start();
  EXPECT_EQ(create("600").status, 507);
  EXPECT_EQ(create("400").status, 201);
}

TEST_F(ResumableTest, AFolderInTheWayIsToldAndTheUploadCanBeFinishedLater) {
  ASSERT_EQ(p_.send("POST", "/api/v1/folders", "2", {{"path", "a/b.txt"}}).status, 201);
  create("3");
  EXPECT_EQ(append("0", "abc").status, 409);
  ASSERT_EQ(p_.send("DELETE", "/api/v1/files?path=a/b.txt", "2").status, 204);
  EXPECT_EQ(append("3", "").status, 204);
  EXPECT_EQ(p_.content("2", "a/b.txt"), "abc");
}

TEST(ResumableExpiry, ForgetsUploadsThatNobodyFinished) {
  Platform p(std::chrono::milliseconds(-1));
  const auto reply =
      p.send("POST", "/api/v1/uploads", "2", nullptr,
             {{"Tus-Resumable", "1.0.0"}, {"Upload-Length", "3"}, {"Upload-Metadata", "path YQ=="}});
  EXPECT_EQ(reply.status, 201);
  EXPECT_EQ(p.send("GET", std::string(reply.headers.get("location")), "2").status, 404);
}

TEST(Tus, ReadsMetadata) {
  const auto values = tus::parse_metadata("filename d29ybGQ=, empty,a YQ==").value();
  EXPECT_EQ(values.at("filename"), "world");
  EXPECT_EQ(values.at("empty"), "");
  for (const char* bad : {"a b", "a YQ==,a YQ==", "a Y", " ,"})
    EXPECT_FALSE(tus::parse_metadata(bad).ok()) << bad;
  EXPECT_EQ(tus::http_date(Time(std::chrono::seconds(1403712000))), "Wed, 25 Jun 2014 16:00:00 GMT");
}

}  // namespace
}  // namespace lathe::files
