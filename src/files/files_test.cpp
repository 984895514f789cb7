#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "files/download.h"
#include "files/publication.h"
#include "files/testing.h"
#include "files/text.h"

namespace lathe::files {
namespace {

namespace fs = std::filesystem;
using testing::Platform;

class FilesTest : public ::testing::Test {
 protected:
  bool staging_is_empty() { return fs::is_empty(p_.host("users/.staging")); }
  Platform p_;
};

TEST_F(FilesTest, UploadsAWholeFolderAsDocumented) {
  const auto reply = p_.upload("2", {{"file", "data/train/a.jsonl", "aaa"},
                                     {"currentPath", "", "/upload/folder"},
                                     {"file", "b.txt", std::string(5000, 'b')}});
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, R"({"success":true,"errorCode":200,"message":"文件上传成功","result":null})");
  EXPECT_EQ(p_.content("2", "upload/folder/data/train/a.jsonl"), "aaa");
  EXPECT_EQ(p_.content("2", "/upload/folder/b.txt"), std::string(5000, 'b'));
  EXPECT_EQ(p_.names("2", "upload/folder"), "b.txt data");
  EXPECT_EQ(p_.content("3", "upload/folder/b.txt"), "<404>");
  EXPECT_EQ(p_.content("3", "upload/folder/b.txt", "&userId=2"), "<403>");
  EXPECT_EQ(p_.content("1", "upload/folder/b.txt", "&userId=2").size(), 5000U);
  EXPECT_TRUE(staging_is_empty());
}

TEST_F(FilesTest, PublicFilesAreReadByAllAndWrittenByTheirUser) {
  const std::string path = "/file/file/uploadPublicFolder";
  EXPECT_EQ(p_.upload("2", {{"file", "a", "public"}, {"publicUserId", "", "2"}}, path).status, 200);
  EXPECT_EQ(p_.content("3", "a", "&scope=public&userId=2"), "public");
  EXPECT_EQ(p_.upload("3", {{"file", "a", "no"}, {"publicUserId", "", "2"}}, path).status, 403);
  EXPECT_EQ(p_.upload("1", {{"publicUserId", "", "2"}, {"file", "a", "admin"}}, path).status, 200);
  EXPECT_EQ(p_.content("3", "a", "&scope=public&userId=2"), "admin");
  EXPECT_EQ(p_.content("2", "a"), "<404>");
  const auto missing = p_.upload("2", {{"file", "a", "x"}}, path);
  EXPECT_EQ(missing.status, 400);
  EXPECT_NE(missing.body.find("publicUserId"), std::string::npos);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=a&scope=public&userId=2", "3").status, 403);
}

TEST_F(FilesTest, AnUploadThatFailsLeavesNothing) {
  const std::string good = Platform::form({{"file", "x/a", "aaa"}, {"file", "b", std::string(3000, 'b')}});
  EXPECT_EQ(p_.upload_text("2", good.substr(0, good.size() - 20), "/api/file/file/uploadFolder", true).status,
            499);
  EXPECT_EQ(p_.upload_text("2", good.substr(0, 150)).status, 400);
  EXPECT_EQ(p_.upload("2", {{"currentPath", "", "x"}}).status, 400);
  EXPECT_EQ(p_.upload("2", {{"file", "a", "1"}, {"file", "a", "2"}}).status, 400);
  EXPECT_EQ(p_.upload("2", {{"file", "a", "1"}, {"other", "b", "2"}}).status, 400);
  EXPECT_EQ(p_.names("2"), "");
  EXPECT_TRUE(staging_is_empty());
  EXPECT_EQ(p_.files().count_now("2")->inodes, 0);
}

TEST_F(FilesTest, HostilePathsAreRefusedByNameInEveryField) {
  for (const std::string hostile :
       {"../x", "a/../../x", "..", "./x", "a\\b/../x", "\x01x", "\xff", "\xe2\x80\xaex"}) {
    const auto in_file = p_.upload("2", {{"file", hostile, "x"}});
    EXPECT_EQ(in_file.status, 400) << hostile;
    EXPECT_TRUE(hostile[0] == '\xff' || hostile[0] == '\x01' ||
                in_file.body.find("file") != std::string::npos)
        << in_file.body;
    const auto in_path = p_.upload("2", {{"file", "a", "x"}, {"currentPath", "", hostile}});
    EXPECT_EQ(in_path.status, 400) << hostile;
    if (hostile != "\xff") {
      EXPECT_NE(in_path.body.find("currentPath"), std::string::npos) << in_path.body;
    }
    EXPECT_EQ(p_.content("2", hostile), "<400>");
    EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=" + hostile, "2").status, 400);
    EXPECT_EQ(p_.send("POST", "/api/v1/folders?path=" + hostile, "2").status, 400);
  }
  EXPECT_EQ(p_.upload("2", {{"file", std::string(300, 'n'), "x"}}).status, 400);
  EXPECT_EQ(p_.names("2"), "");
  EXPECT_EQ(p_.upload("2", {{"file", "/etc/passwd", "mine"}}).status, 200);
  EXPECT_EQ(p_.content("2", "etc/passwd"), "mine");
  fs::create_symlink("/etc", p_.host("users/2/private/link"));
  fs::create_symlink("../../3/private", p_.host("users/2/private/peer"));
  ASSERT_EQ(p_.upload("3", {{"file", "secret", "x"}}).status, 200);
  EXPECT_EQ(p_.content("2", "link/hostname"), "<400>");
  EXPECT_EQ(p_.content("2", "peer/secret"), "<400>");
  EXPECT_EQ(p_.upload("2", {{"file", "peer/new", "x"}}).status, 400);
  EXPECT_EQ(p_.names("3"), "secret");
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=peer", "2").status, 204);
  EXPECT_EQ(p_.names("3"), "secret");
}

TEST_F(FilesTest, ReplacesFilesButNeverFolders) {
  ASSERT_EQ(p_.upload("2", {{"file", "a", "old"}, {"file", "d/x", "x"}}).status, 200);
  ASSERT_EQ(p_.upload("2", {{"file", "a", "newer"}}).status, 200);
  EXPECT_EQ(p_.content("2", "a"), "newer");
  // All or nothing: `c` would have been fine.
  EXPECT_EQ(p_.upload("2", {{"file", "c", "c"}, {"file", "d", "not a folder"}}).status, 409);
  EXPECT_EQ(p_.upload("2", {{"file", "c", "c"}, {"file", "a/below", "a is a file"}}).status, 409);
  EXPECT_EQ(p_.names("2"), "a d");
  EXPECT_EQ(p_.content("2", "a"), "newer");
  EXPECT_EQ(p_.files().count_now("2")->bytes, 6);
}

TEST_F(FilesTest, AnUploadOfSeveralFilesIsFinishedAfterACrash) {
  ASSERT_EQ(p_.upload("2", {{"file", "a", "old"}}).status, 200);
  const fs::path stage = p_.host("users/.staging/folder-crashed");
  fs::create_directories(stage);
  std::ofstream(stage / "1") << "second";  // the first was renamed before the server died
  Publication publication{"2", "private", {{"0", "first"}, {"1", "deep/second"}}};
  std::ofstream(stage / "journal") << json::write(publication);
  fs::create_directories(p_.host("users/.staging/folder-garbage"));
  std::ofstream(p_.host("users/.staging/folder-garbage") + "/0") << "half a file";
  p_.start();
  EXPECT_EQ(p_.content("2", "deep/second"), "second");
  EXPECT_EQ(p_.content("2", "a"), "old");
  EXPECT_TRUE(staging_is_empty());
}

TEST_F(FilesTest, ListsInPagesAndMovesAndDeletes) {
  std::vector<testing::Part> parts;
  for (int i = 10; i < 40; ++i) parts.push_back({"file", "f" + std::to_string(i), "x"});
  ASSERT_EQ(p_.upload("2", parts).status, 200);
  auto page = p_.send("GET", "/api/v1/files?pageSize=20", "2");
  ASSERT_EQ(page.json.at("items").as_array().size(), 20U);
  const std::string cursor(page.json.at("nextCursor").as_string());
  page = p_.send("GET", "/api/v1/files?pageSize=20&cursor=" + cursor, "2");
  EXPECT_EQ(page.json.at("items").as_array().size(), 10U);
  EXPECT_EQ(page.json.at("items").at(0).at("name"), "f30");
  EXPECT_TRUE(page.json.at("nextCursor").is_null());
  EXPECT_EQ(p_.send("GET", "/api/v1/files?cursor=zz", "2").status, 400);

  EXPECT_EQ(p_.send("PATCH", "/api/v1/files", "2", {{"path", "f10"}, {"newPath", "sub/g"}}).status, 200);
  EXPECT_EQ(p_.content("2", "sub/g"), "x");
  EXPECT_EQ(p_.send("PATCH", "/api/v1/files", "2", {{"path", "f11"}, {"newPath", "sub/g"}}).status, 409);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/files", "2", {{"path", "f11"}, {"newPath", "sub/g"}, {"replace", true}})
                .status,
            200);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/files", "2", {{"path", "sub"}, {"newPath", "sub/in"}}).status, 400);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/files", "2", {{"path", "none"}, {"newPath", "x"}}).status, 404);
  EXPECT_EQ(p_.send("POST", "/api/v1/folders", "2", {{"path", "x/y/z"}}).status, 201);
  EXPECT_EQ(p_.send("POST", "/api/v1/folders", "2", {{"path", "x/y/z"}}).status, 409);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=sub", "2").status, 204);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=sub", "2").status, 404);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=/", "2").status, 400);
  EXPECT_EQ(p_.content("2", "sub/g"), "<404>");
  EXPECT_TRUE(staging_is_empty());
  const auto counted = p_.files().count_now("2").value();
  EXPECT_EQ(counted.inodes, 28 + 3);
  EXPECT_EQ(counted.bytes, 28);
}

class QuotaTest : public FilesTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(
        p_.send("PUT", "/api/v1/users/2/quota", "1", {{"storageBytes", 10'000}, {"storageInodes", 5}}).status,
        200);
  }
  quotas::Storage used() {
    return p_.db()
        .read([&](db::Transaction& tx) -> Result<quotas::Storage> { return p_.quotas().storage_of(tx, "2"); })
        .value();
  }
};

TEST_F(QuotaTest, EndsAnUploadWhileItStreams) {
  const auto reply = p_.upload("2", {{"file", "big", std::string(20'000, 'x')}});
  EXPECT_EQ(reply.status, 507);
  EXPECT_NE(reply.body.find("\"errorCode\":507"), std::string::npos);
  EXPECT_EQ(p_.names("2"), "");
  EXPECT_TRUE(staging_is_empty());
  EXPECT_EQ(used().bytes, 0);
  EXPECT_EQ(p_.upload("2", {{"file", "fits", std::string(9'000, 'x')}}).status, 200);
  EXPECT_EQ(used().bytes, 9000);
  EXPECT_EQ(p_.upload("2", {{"file", "more", std::string(2'000, 'x')}}).status, 507);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/files?path=fits", "2").status, 204);
  EXPECT_EQ(used().bytes, 0);
  EXPECT_EQ(p_.upload("2", {{"file", "more", std::string(2'000, 'x')}}).status, 200);
  EXPECT_EQ(used().bytes, 2000);
}

TEST_F(QuotaTest, CountsFilesAndFolders) {
  EXPECT_EQ(p_.upload("2", {{"file", "a", "1"}, {"file", "b", "1"}, {"file", "c", "1"}}).status, 200);
  EXPECT_EQ(p_.send("POST", "/api/v1/folders", "2", {{"path", "x/y/z"}}).status, 507);
  EXPECT_EQ(p_.send("POST", "/api/v1/folders", "2", {{"path", "x/y"}}).status, 201);
  EXPECT_EQ(p_.upload("2", {{"file", "d", "1"}}).status, 507);
  EXPECT_EQ(used().inodes, 5);
}

TEST_F(QuotaTest, ReservationsAtTheSameTimeCannotTogetherExceedIt) {
  auto first = p_.files().reserve("2").value();
  auto second = p_.files().reserve("2").value();
  EXPECT_TRUE(first->grow(6'000, 1).ok());
  EXPECT_EQ(second->grow(6'000, 1).error().code, Code::storage_exhausted);
  EXPECT_EQ(used().bytes, 6'000);
  first.reset();
  EXPECT_TRUE(second->grow(6'000, 1).ok());
  second->commit(1'000, 1);
  EXPECT_EQ(used().bytes, 1'000);
  EXPECT_EQ(p_.files().count_now("2")->bytes, 0);  // nothing of it is on the disk
}

TEST(Ranges, FollowTheRfc) {
  using Kind = Ranges::Kind;
  auto parts = [](std::string_view header) { return parse_ranges(header, 100).parts; };
  EXPECT_EQ(parts("bytes=0-9"), (std::vector<Slice>{{0, 10}}));
  EXPECT_EQ(parts("bytes=90-"), (std::vector<Slice>{{90, 10}}));
  EXPECT_EQ(parts("bytes=-10"), (std::vector<Slice>{{90, 10}}));
  EXPECT_EQ(parts("bytes=-1000"), (std::vector<Slice>{{0, 100}}));
  EXPECT_EQ(parts("bytes=95-1000"), (std::vector<Slice>{{95, 5}}));
  EXPECT_EQ(parts("bytes=0-0, 99-99"), (std::vector<Slice>{{0, 1}, {99, 1}}));
  EXPECT_EQ(parts("bytes=0-0,200-300"), (std::vector<Slice>{{0, 1}}));
  for (const char* header : {"bytes=100-", "bytes=-0", "bytes=100-200,300-"})
    EXPECT_EQ(parse_ranges(header, 100).kind, Kind::unsatisfiable) << header;
  for (const char* header :
       {"", "bytes=", "bytes=a-b", "lines=0-1", "bytes=9-1", "bytes=1", "bytes=0-9,5-20"})
    EXPECT_EQ(parse_ranges(header, 100).kind, Kind::whole) << header;
  EXPECT_EQ(parse_ranges("bytes=0-", 0).kind, Kind::unsatisfiable);
}

TEST_F(FilesTest, DownloadsPartsAndKnowsUnchangedFiles) {
  ASSERT_EQ(p_.upload("2", {{"file", "报告 1.txt", "0123456789"}}).status, 200);
  const std::string path = "/api/v1/files/content?path=报告 1.txt";
  const auto whole = p_.send("GET", path, "2");
  const std::string etag(whole.headers.get("etag"));
  EXPECT_EQ(whole.headers.get("content-disposition"),
            "attachment; filename=\"__ 1.txt\"; filename*=UTF-8''%E6%8A%A5%E5%91%8A%201.txt");
  auto get = [&](const std::string& name, const std::string& value, const std::string& range = "") {
    return p_.send("GET", path, "2", nullptr, {{name, value}, {"Range", range}});
  };
  EXPECT_EQ(get("If-None-Match", etag).status, 304);
  EXPECT_EQ(get("If-None-Match", "\"other\", W/" + etag).status, 304);
  EXPECT_EQ(get("If-None-Match", "\"other\"").status, 200);
  auto part = get("If-Range", etag, "bytes=2-4");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, "234");
  EXPECT_EQ(part.headers.get("content-range"), "bytes 2-4/10");
  EXPECT_EQ(get("If-Range", "\"other\"", "bytes=2-4").body, "0123456789");
  part = get("X", "", "bytes=20-");
  EXPECT_EQ(part.status, 416);
  EXPECT_EQ(part.headers.get("content-range"), "bytes */10");
  part = get("X", "", "bytes=0-1,8-9");
  EXPECT_EQ(part.status, 206);
  EXPECT_NE(part.body.find("Content-Range: bytes 0-1/10\r\n\r\n01\r\n--"), std::string::npos) << part.body;
  EXPECT_NE(part.body.find("Content-Range: bytes 8-9/10\r\n\r\n89\r\n--"), std::string::npos) << part.body;
}

TEST(FileText, NamesThatAreNotUtf8AreShownSomehow) {
  EXPECT_EQ(valid_text("a\xff"
                       "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(content_disposition("a\"b\\\n"),
            "attachment; filename=\"a\\\"b\\\\\"; filename*=UTF-8''a%22b%5C%0A");
  EXPECT_EQ(decode_cursor(encode_cursor("\xff模型")).value(), "\xff模型");
}

}  // namespace
}  // namespace lathe::files
