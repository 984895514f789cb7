#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "files/testing.h"
#include "images/blob_store.h"
#include "images/images.h"
#include "images/reference.h"

namespace lathe::images {
namespace {

namespace fs = std::filesystem;
using files::testing::Platform;
using files::testing::Reply;

std::string digest(const std::string& text) {
  Sha256 hash;
  hash.add(text);
  return hash.digest();
}

struct TarEntry {
  std::string name, content;
  int type = AE_IFREG;
  std::string link;
};

/// A tar, packed with `filter` (an ARCHIVE_FILTER_ code).
std::string tar(const std::vector<TarEntry>& entries, int filter = ARCHIVE_FILTER_NONE) {
  std::string out(4 << 20, '\0');
  std::size_t used = 0;
  struct archive* a = archive_write_new();
  archive_write_set_format_ustar(a);
  archive_write_add_filter(a, filter);
  EXPECT_EQ(archive_write_open_memory(a, out.data(), out.size(), &used), ARCHIVE_OK);
  for (const TarEntry& e : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, e.name.c_str());
    archive_entry_set_filetype(entry, static_cast<unsigned>(e.type));
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(e.content.size()));
    if (e.type == AE_IFLNK) archive_entry_set_symlink(entry, e.link.c_str());
    archive_write_header(a, entry);
    archive_write_data(a, e.content.data(), e.content.size());
    archive_entry_free(entry);
  }
  archive_write_close(a);
  archive_write_free(a);
  out.resize(used);
  return out;
}

std::string config_of(const std::vector<std::string>& layers) {
  std::string diff_ids;
  for (const auto& layer : layers) diff_ids += (diff_ids.empty() ? "\"" : ",\"") + digest(layer) + "\"";
  return R"({"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/sh"],"Cmd":null,)"
         R"("Env":["A=b"],"ExposedPorts":{"8000/tcp":{}}},"rootfs":{"type":"layers","diff_ids":[)" +
         diff_ids + "]}}";
}

/// What `docker save` writes.
std::vector<TarEntry> docker_archive(const std::vector<std::string>& layers, const std::string& config) {
  const std::string config_name = digest(config).substr(7) + ".json";
  std::vector<TarEntry> out;
  std::string names;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string folder = "layer" + std::to_string(i);
    out.push_back({folder + "/", "", AE_IFDIR});
    out.push_back({folder + "/VERSION", "1.0"});
    out.push_back({folder + "/layer.tar", layers[i]});
    names += (i > 0 ? ",\"" : "\"") + folder + "/layer.tar\"";
  }
  out.push_back({config_name, config});
  out.push_back({"manifest.json",
                 R"([{"Config":")" + config_name + R"(","RepoTags":["x:1"],"Layers":[)" + names + "]}]"});
  return out;
}

std::vector<TarEntry> oci_archive(const std::vector<std::string>& layers, const std::string& config) {
  std::vector<TarEntry> out{{"oci-layout", R"({"imageLayoutVersion":"1.0.0"})"}};
  auto descriptor = [](const char* type, const std::string& content) {
    return R"({"mediaType":"application/vnd.oci.image.)" + std::string(type) + R"(","digest":")" +
           digest(content) + R"(","size":)" + std::to_string(content.size()) + "}";
  };
  auto add = [&](const std::string& content) {
    out.push_back({"blobs/sha256/" + digest(content).substr(7), content});
  };
  std::string list;
  for (const auto& layer : layers) {
    add(layer);
    list += (list.empty() ? "" : ",") + descriptor("layer.v1.tar", layer);
  }
  add(config);
  const std::string manifest = R"({"schemaVersion":2,"config":)" + descriptor("config.v1+json", config) +
                               R"(,"layers":[)" + list + "]}";
  add(manifest);
  out.push_back({"index.json",
                 R"({"schemaVersion":2,"manifests":[)" + descriptor("manifest.v1+json", manifest) + "]}"});
  return out;
}

class ImagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    p_.also(
        [this] {
          Options options;
          options.store_directory = p_.host("images");
          options.max_entries = 500;
          images_ =
              Images::open(p_.db(), p_.accounts(), p_.files(), p_.audit(), p_.ids(), p_.clock(), options)
                  .value();
          images_->add_routes(p_.api());
          images_->guard_deletion(
              [this](db::Transaction&, std::string_view id, std::string_view) -> Result<void> {
                if (id != in_use_) return {};
                return Error{Code::failed_precondition, {"使用中", "in use"}};
              });
          EXPECT_TRUE(!imports_ || images_->start().ok());
        },
        [this] { images_.reset(); });
  }
  void TearDown() override { images_.reset(); }

  std::string create(const std::string& name, const std::string& user = "2") {
    const Reply reply =
        p_.send("POST", "/docker/image/upload", user, {{"imageName", name}, {"userId", user}});
    EXPECT_EQ(reply.status, 200) << reply.body;
    return std::string(row(name, user).at("id").as_string());
  }
  boost::json::value row(const std::string& name, const std::string& user = "2") {
    const Reply reply =
        p_.send("POST", "/docker/image/findListSort", user, {{"pageNum", 1}, {"imageName", name}});
    EXPECT_EQ(reply.status, 200) << reply.body;
    const auto& rows = reply.json.at("result").at("rows").as_array();
    return rows.empty() ? boost::json::value() : rows.at(0);
  }
  Reply import(const std::string& id, const std::string& tag = "1.0", const std::string& file = "a.tar") {
    return p_.send("POST", "/docker/image/uploadOld", "2",
                   {{"userId", "2"}, {"imageId", id}, {"imageTag", tag}, {"fileUrl", file}});
  }
  /// Uploads the tar, imports it and gives the row at the end of the import.
  boost::json::value imported(const std::string& name, const std::string& bytes,
                              const std::string& tag = "1.0") {
    if (row(name).is_null()) create(name);
    EXPECT_EQ(p_.upload("2", {{"file", "a.tar", bytes}}).status, 200);
    EXPECT_EQ(import(std::string(row(name).at("id").as_string()), tag).status, 200);
    return ended(name);
  }
  boost::json::value ended(const std::string& name) {
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < patience) {
      auto now = row(name);
      if (now.at("imageStatus") != 2) return now;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ADD_FAILURE() << "the import of " << name << " does not end";
    return row(name);
  }
  std::string failure(const std::string& name, const std::string& bytes) {
    const auto now = imported(name, bytes);
    EXPECT_EQ(now.at("imageStatus"), 3);
    EXPECT_EQ(now.at("statusName"), "失败");
    return now.at("failReason").is_string() ? std::string(now.at("failReason").as_string()) : "";
  }
  std::size_t blob_count() {
    std::size_t n = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(p_.host("images/blobs/sha256"))) ++n;
    return n;
  }
  Result<ImageRef> resolve(std::string_view text, std::string_view user = "2") {
    return images_->resolve(user, user == "1", text, "image");
  }

  Platform p_;
  std::unique_ptr<Images> images_;
  std::string in_use_;
  bool imports_ = true;
  const std::vector<std::string> layers_{std::string(5000, 'a'), std::string(70'000, 'b')};
};

TEST_F(ImagesTest, TheDocumentedExamples) {
  const Reply created = p_.send(
      "POST", "/docker/image/upload", "3",
      json::parse(
          R"({"imageName":"dzq/45","imageIcon":"","imageOverView":"","imageLabel":[],"imageDescribe":"","userId":"3"})")
          .value());
  EXPECT_EQ(created.body, R"({"success":true,"errorCode":200,"message":"新增镜像成功","result":null})");
  const Reply listed =
      p_.send("POST", "/api/docker/image/findListSort", "3",
              json::parse(R"({"pageNum":1,"pageSize":10,"imageName":"","userId":"3"})").value());
  const auto& result = listed.json.at("result");
  EXPECT_EQ(result.at("total"), 2);  // `host` is everybody's
  const auto& row = result.at("rows").at(0);
  EXPECT_EQ(row.at("imageName"), "dzq/45");
  EXPECT_EQ(row.at("imageStatus"), 0);
  EXPECT_EQ(row.at("statusName"), "待上传");
  EXPECT_TRUE(row.at("imageLabel").is_null());
  EXPECT_EQ(row.at("user_id"), "3");
  EXPECT_EQ(row.at("createTime").as_string().size(), 19U);
  EXPECT_EQ(result.at("rows").at(1).at("imageName"), "host");
}

TEST_F(ImagesTest, RefusesWrongFieldsByName) {
  auto send = [&](const Json& body) { return p_.send("POST", "/docker/image/upload", "2", body); };
  for (const char* name : {"", "Upper", "a//b", "/a", "a/", "-a", "a..b", "模型", "a;rm", "a b", "../x"}) {
    const Reply reply = send({{"imageName", name}, {"userId", "2"}});
    EXPECT_EQ(reply.status, 400) << name;
    EXPECT_EQ(reply.json.at("errorCode"), 701);
    EXPECT_NE(reply.body.find("imageName"), std::string::npos) << reply.body;
  }
  EXPECT_EQ(send({{"imageName", "a"}, {"userId", "3"}}).status, 403);
  EXPECT_EQ(send({{"imageName", "host"}, {"userId", "2"}}).status, 409);
  const std::string id = create("a");
  EXPECT_EQ(send({{"imageName", "a"}, {"userId", "2"}}).status, 409);
  EXPECT_EQ(import(id, "1.0", "none.tar").status, 404);
  EXPECT_EQ(import(id, "-1").status, 400);
  EXPECT_EQ(import(id, "1", "../a.tar").status, 400);
  ASSERT_EQ(p_.upload("2", {{"file", "a.tar", "x"}}).status, 200);
  EXPECT_EQ(import("0123").status, 404);
  EXPECT_EQ(import(create("b", "3")).status, 404);
  EXPECT_EQ(p_.send("POST", "/docker/image/uploadOld", "2", {{"fileUrl", "a.tar"}}).status, 400);
  EXPECT_EQ(p_.send("POST", "/docker/image/findListSort", "2", {{"imageName", {{"a", 1}}}}).status, 400);
}

TEST_F(ImagesTest, ImportsWhatDockerSaves) {
  const std::string config = config_of(layers_);
  const auto now = imported("zjm/a", tar(docker_archive(layers_, config)));
  EXPECT_EQ(now.at("imageStatus"), 1) << now;
  EXPECT_EQ(now.at("statusName"), "成功");
  EXPECT_EQ(now.at("tagNum"), 1);
  EXPECT_EQ(now.at("imageTag"), "1.0");
  EXPECT_EQ(now.at("imageSize"), "75.9KB");
  EXPECT_EQ(blob_count(), 4U);
  const auto ref = resolve("zjm/a").value();
  EXPECT_EQ(ref.kind, ImageRef::Kind::oci);
  EXPECT_EQ(ref.tag, "1.0");
  EXPECT_EQ(ref.config.entrypoint, std::vector<std::string>{"/bin/sh"});
  EXPECT_EQ(ref.config.env, std::vector<std::string>{"A=b"});
  EXPECT_EQ(ref.config.exposed_ports, std::vector<std::string>{"8000/tcp"});
  const std::string hex(hex_of(ref.digest));
  std::ifstream file(p_.host("images/blobs/sha256/" + hex));
  const std::string manifest(std::istreambuf_iterator<char>(file), {});
  EXPECT_NE(manifest.find(digest(layers_[1])), std::string::npos);
  EXPECT_NE(manifest.find(digest(config)), std::string::npos);
  // What is there already is neither written nor counted again.
  const auto used = [&] {
    return p_.db()
        .read([&](db::Transaction& tx) -> Result<quotas::Storage> { return images_->storage_of(tx, "2"); })
        .value();
  };
  const auto before = used();
  EXPECT_EQ(imported("zjm/a", tar(docker_archive(layers_, config)), "2.0").at("tagNum"), 2);
  EXPECT_EQ(blob_count(), 4U);
  EXPECT_EQ(used().bytes, before.bytes);
}

TEST_F(ImagesTest, UnfinishedImportsGoOnOnceEverybodyListens) {
  imports_ = false;
  p_.start();
  EXPECT_EQ(p_.upload("2", {{"file", "a.tar", tar(docker_archive(layers_, config_of(layers_)))}}).status,
            200);
  EXPECT_EQ(import(create("a")).status, 200);
  p_.start();
  EXPECT_EQ(row("a").at("imageStatus"), 2);
  std::atomic<int> changes{0};
  images_->on_change([&](std::string_view) { ++changes; });
  ASSERT_TRUE(images_->start().ok());
  EXPECT_EQ(ended("a").at("imageStatus"), 1);
  images_.reset();  // the end of its threads
  EXPECT_EQ(changes, 1);
}

TEST_F(ImagesTest, ImportsOciArchivesAndPackedOnes) {
  const std::string config = config_of(layers_);
  EXPECT_EQ(imported("oci", tar(oci_archive(layers_, config))).at("imageStatus"), 1);
  EXPECT_EQ(imported("gz", tar(docker_archive(layers_, config), ARCHIVE_FILTER_GZIP)).at("imageStatus"), 1);
  EXPECT_EQ(imported("zstd", tar(oci_archive(layers_, config), ARCHIVE_FILTER_ZSTD)).at("imageStatus"), 1);
  EXPECT_EQ(resolve("oci")->digest, resolve("zstd")->digest);
  EXPECT_EQ(blob_count(), 5U);  // two manifests of the same layers
  // Packed layers in a docker-archive are known by what they unpack to.
  const std::string packed = tar({{"x", "y"}}, ARCHIVE_FILTER_GZIP), plain = tar({{"x", "y"}});
  EXPECT_EQ(imported("layers", tar(docker_archive({packed}, config_of({plain})))).at("imageStatus"), 1);
  EXPECT_NE(failure("wrong", tar(docker_archive({packed}, config_of({"other"})))).find("digest"),
            std::string::npos);
  // Old archives say the same layer twice by a link.
  auto linked = docker_archive({layers_[0], layers_[0]}, config_of({layers_[0], layers_[0]}));
  for (auto& e : linked)
    if (e.name == "layer1/layer.tar") e = {e.name, "", AE_IFLNK, "../layer0/layer.tar"};
  EXPECT_EQ(imported("linked", tar(linked)).at("imageStatus"), 1);
}

TEST_F(ImagesTest, RefusesHostileAndBrokenArchivesWithTheReason) {
  const std::string config = config_of(layers_);
  const auto good = docker_archive(layers_, config);
  auto with = [&](TarEntry extra) {
    auto entries = good;
    entries.insert(entries.begin(), std::move(extra));
    return tar(entries);
  };
  const std::string whole = tar(good);
  EXPECT_NE(failure("cut", whole.substr(0, 40'000)).find("not a whole tar"), std::string::npos);
  EXPECT_NE(failure("text", "this is not a tar at all").find("not a whole tar"), std::string::npos);
  EXPECT_FALSE(failure("empty", "").empty());
  EXPECT_NE(failure("climb", with({"../../etc/passwd", "x"})).find("leads out"), std::string::npos);
  EXPECT_NE(failure("absolute", with({"/etc/passwd", "x"})).find("leads out"), std::string::npos);
  EXPECT_NE(failure("link", with({"l", "", AE_IFLNK, "../../etc/passwd"})).find("link"), std::string::npos);
  EXPECT_NE(failure("absolute-link", with({"l", "", AE_IFLNK, "/etc/passwd"})).find("link"),
            std::string::npos);
  EXPECT_NE(failure("device", with({"d", "", AE_IFCHR})).find("device"), std::string::npos);
  EXPECT_NE(failure("pipe", with({"d", "", AE_IFIFO})).find("device"), std::string::npos);
  EXPECT_NE(failure("twice", with({"manifest.json", "[]"})).find("twice"), std::string::npos);
  EXPECT_NE(failure("no-manifest", tar({{"a", "b"}})).find("not an image archive"), std::string::npos);
  EXPECT_NE(failure("missing", tar({good.begin() + 3, good.end()})).find("missing"), std::string::npos);
  EXPECT_NE(failure("layer", tar(docker_archive({layers_[0], "other"}, config))).find("does not match"),
            std::string::npos);
  auto oci = oci_archive(layers_, config);
  oci[1].content[0] = 'X';
  EXPECT_NE(failure("digest", tar(oci)).find("does not match its digest"), std::string::npos);
  std::vector<TarEntry> many;
  for (int i = 0; i < 501; ++i) many.push_back({"f" + std::to_string(i), ""});
  EXPECT_NE(failure("many", tar(many)).find("500 entries"), std::string::npos);
  EXPECT_EQ(blob_count(), 0U);
  EXPECT_TRUE(fs::is_empty(p_.host("images/.staging")));
  const auto error = resolve("cut").error();
  EXPECT_EQ(error.code, Code::failed_precondition);
  EXPECT_NE(error.message.en.find("not a whole tar"), std::string::npos);
  // A later import makes it good.
  EXPECT_EQ(imported("cut", whole).at("imageStatus"), 1);
  EXPECT_TRUE(row("cut").at("failReason").is_null());
}

TEST_F(ImagesTest, AnImportThatWasCutShortBeginsAgain) {
  const std::string id = create("a");
  ASSERT_EQ(p_.upload("2", {{"file", "a.tar", tar(docker_archive(layers_, config_of(layers_)))}}).status,
            200);
  images_.reset();  // as if the server had died with the import under way
  ASSERT_TRUE(p_.db()
                  .write([&](db::Transaction& tx) -> Result<void> {
                    tx.execute(
                        "INSERT INTO image_imports (id, image_id, user_id, tag, file_path, state, fail_zh, "
                        "fail_en, total, created_at) "
                        "VALUES ('i', $1, '2', 'latest', 'a.tar', 'running', '', '', 0, 0)",
                        {id});
                    tx.execute("UPDATE images SET status = 2 WHERE id = $1", {id});
                    return {};
                  })
                  .ok());
  std::ofstream(p_.host("images/.staging/half")) << "half a layer";
  std::ofstream(p_.host("images/blobs/sha256/" + std::string(64, 'a'))) << "nobody names this";
  p_.start();
  EXPECT_EQ(ended("a").at("imageStatus"), 1);
  EXPECT_EQ(blob_count(), 4U);
  EXPECT_TRUE(fs::is_empty(p_.host("images/.staging")));
}

TEST_F(ImagesTest, ResolvesWhatAUserMayRun) {
  for (const char* text : {"", "host", "00000000000000000000000000000000"}) {
    EXPECT_EQ(resolve(text)->kind, ImageRef::Kind::host) << text;
  }
  imported("team/a", tar(docker_archive(layers_, config_of(layers_))), "1.0");
  const std::string id(row("team/a").at("id").as_string());
  EXPECT_EQ(resolve("team/a:1.0")->name, "team/a");
  EXPECT_EQ(resolve(id)->name, "team/a");
  EXPECT_EQ(resolve("team/a:2.0").error().code, Code::failed_precondition);
  const auto none = resolve("none").error();
  EXPECT_EQ(none.code, Code::not_found);
  EXPECT_EQ(none.violations.at(0).field, "image");
  EXPECT_EQ(resolve("team/a", "3").error().code, Code::not_found);
  EXPECT_EQ(resolve(id, "3").error().code, Code::not_found);
  EXPECT_EQ(resolve(id, "1")->name, "team/a");
  EXPECT_EQ(p_.send("PATCH", "/api/v1/images/" + id, "3", {{"public", true}}).status, 404);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/images/" + id, "2", {{"public", true}}).status, 200);
  EXPECT_EQ(resolve("team/a", "3")->name, "team/a");
  EXPECT_EQ(p_.send("GET", "/api/v1/images/" + id, "3").json.at("tags").at(0).at("tag"), "1.0");
}

TEST_F(ImagesTest, DeletesImagesTagsAndWhatNobodyNeeds) {
  const std::string config = config_of(layers_);
  imported("a", tar(docker_archive(layers_, config)), "1");
  imported("a", tar(docker_archive({layers_[0]}, config_of({layers_[0]}))), "2");
  EXPECT_EQ(blob_count(), 6U);
  const std::string url = "/api/v1/images/" + std::string(row("a").at("id").as_string());
  EXPECT_EQ(p_.send("DELETE", url + "/tags/9", "2").status, 404);
  EXPECT_EQ(p_.send("DELETE", url + "/tags/1", "2").status, 204);
  EXPECT_EQ(blob_count(), 3U);
  EXPECT_EQ(row("a").at("imageTag"), "2");
  in_use_ = row("a").at("id").as_string();
  EXPECT_EQ(p_.send("DELETE", url, "2").status, 409);
  in_use_.clear();
  EXPECT_EQ(p_.send("DELETE", url, "3").status, 404);
  EXPECT_EQ(p_.send("DELETE", "/api/v1/users/2", "1").status, 409);
  EXPECT_EQ(p_.send("DELETE", url, "2").status, 204);
  EXPECT_EQ(blob_count(), 0U);
  EXPECT_TRUE(row("a").is_null());
  EXPECT_EQ(p_.send("DELETE", "/api/v1/images/00000000000000000000000000000000", "1").status, 403);
}

TEST_F(ImagesTest, GivesImagesBackAsAnArchiveThatCanBeImportedAgain) {
  const std::string config = config_of(layers_);
  imported("a", tar(docker_archive(layers_, config)));
  const auto ref = resolve("a").value();
  const auto out = images_->open_export(ref.digest, "lathe.local/a:1.0").value();
  EXPECT_EQ(out->config_digest(), digest(config));
  std::string bytes;
  const auto collect = [&](std::string_view piece) -> Result<void> {
    bytes += piece;
    return {};
  };
  ASSERT_TRUE(out->write(collect).ok());
  EXPECT_EQ(bytes.size(), out->size());
  const std::string path = p_.host("out.tar");
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_TRUE(out->send(fd).ok());
  ::close(fd);
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), bytes);
  EXPECT_NE(bytes.find("lathe.local/a:1.0"), std::string::npos);
  EXPECT_EQ(imported("b", bytes).at("imageStatus"), 1);
  EXPECT_EQ(resolve("b")->digest, ref.digest);
  const auto full = [](std::string_view) -> Result<void> { return Error{Code::storage_exhausted, {}}; };
  EXPECT_EQ(out->write(full).error().code, Code::storage_exhausted);
  EXPECT_EQ(images_->open_export(digest("none"), "x").error().code, Code::not_found);
}

TEST_F(ImagesTest, TheQuotaHoldsForImagesToo) {
  const std::string bytes = tar(docker_archive(layers_, config_of(layers_)));
  ASSERT_EQ(p_.send("PUT", "/api/v1/users/2/quota", "1",
                    {{"storageBytes", static_cast<std::int64_t>(bytes.size()) + 1000}})
                .status,
            200);
  EXPECT_NE(failure("a", bytes).find("quota"), std::string::npos);
  EXPECT_EQ(blob_count(), 0U);
}

TEST(ImageReference, SplitsAndNamesSizes) {
  EXPECT_EQ(split_reference("a/b:1").tag, "1");
  EXPECT_EQ(split_reference("host:5000/a").name, "host:5000/a");
  EXPECT_EQ(size_for_people(999), "999B");
  EXPECT_EQ(size_for_people(1'130'000), "1.1MB");
  for (const char* name : {"a", "dzq/45", "a.b-c__d/e--f", "0"}) EXPECT_FALSE(wrong_name(name)) << name;
  EXPECT_TRUE(wrong_tag(std::string(129, 'a')));
}

}  // namespace
}  // namespace lathe::images
