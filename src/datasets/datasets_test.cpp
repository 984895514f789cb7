#include "datasets/datasets.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "files/testing.h"

namespace lathe::datasets {
namespace {

using files::testing::Platform;

class DatasetsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    p_.also(
        [this] {
          datasets_ =
              Datasets::open(p_.db(), p_.accounts(), p_.files(), p_.audit(), p_.ids(), p_.clock()).value();
          datasets_->add_routes(p_.api());
          datasets_->guard_deletion(
              [this](db::Transaction&, std::string_view dataset, std::string_view version) -> Result<void> {
                if (in_use_.empty() || (in_use_ != dataset && in_use_ != version)) return {};
                return Error{Code::failed_precondition, {"使用中", "in use"}};
              });
        },
        [this] { datasets_.reset(); });
    ASSERT_EQ(p_.upload("2", {{"file", "data/train/a", "aaa"}, {"file", "data/b", "bb"}}).status, 200);
  }
  void TearDown() override { datasets_.reset(); }

  std::string create(const std::string& name, const std::string& path = "data") {
    const auto reply = p_.send("POST", "/api/v1/datasets", "2", {{"name", name}, {"path", path}});
    EXPECT_EQ(reply.status, 201) << reply.body;
    return std::string(reply.json.at("id").as_string());
  }
  boost::json::value measured(const std::string& id) {
    for (int i = 0; i < 5000; ++i) {
      auto version = p_.send("GET", "/api/v1/datasets/" + id, "2").json.at("latestVersion");
      if (version.at("state") != "measuring") return version;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ADD_FAILURE() << "never measured";
    return {};
  }

  Platform p_;
  std::unique_ptr<Datasets> datasets_;
  std::string in_use_;
};

TEST_F(DatasetsTest, PointAtFilesAndMeasureThem) {
  const std::string id = create("corpus");
  const auto version = measured(id);
  EXPECT_EQ(version.at("version"), "1");
  EXPECT_EQ(version.at("size"), 5);
  EXPECT_EQ(version.at("fileCount"), 2);
  EXPECT_EQ(version.at("storageMedium"), 1201);
  const auto second = p_.send("POST", "/api/v1/datasets/" + id + "/versions", "2", {{"path", "/data/b"}});
  EXPECT_EQ(second.status, 201);
  EXPECT_EQ(second.json.at("version"), "2");
  EXPECT_EQ(measured(id).at("size"), 2);
  const auto list = p_.send("GET", "/api/v1/datasets/" + id + "/versions", "2");
  EXPECT_EQ(list.json.at("items").as_array().size(), 2U);
  EXPECT_EQ(list.json.at("items").at(0).at("version"), "2");
  p_.start();
  EXPECT_EQ(p_.send("GET", "/api/v1/datasets/" + id, "2").json.at("versionCount"), 2);
}

TEST_F(DatasetsTest, RefusesWhatIsWrong) {
  auto status = [&](const Json& body, const std::string& user = "2") {
    return p_.send("POST", "/api/v1/datasets", user, body).status;
  };
  EXPECT_EQ(status({{"path", "data"}}), 400);
  EXPECT_EQ(status({{"name", "a;b"}}), 400);
  EXPECT_EQ(status({{"name", "a"}, {"path", "none"}}), 404);
  EXPECT_EQ(status({{"name", "a"}, {"path", "../data"}}), 400);
  EXPECT_EQ(status({{"name", "a"}, {"path", "data"}, {"storageMedium", 1203}}), 400);
  EXPECT_EQ(status({{"name", "a"}, {"userId", "3"}}), 403);
  EXPECT_EQ(status({{"name", "a"}}), 201);
  EXPECT_EQ(status({{"name", "a"}}), 409);
  EXPECT_EQ(status({{"name", "a"}}, "3"), 201);
  const std::string id = create("b");
  const std::string versions = "/api/v1/datasets/" + id + "/versions";
  EXPECT_EQ(p_.send("POST", versions, "2", {{"path", "data"}, {"version", "1"}}).status, 409);
  EXPECT_EQ(p_.send("POST", versions, "2", {{"version", "2"}}).status, 400);
  EXPECT_EQ(p_.send("POST", versions, "3", {{"path", "data"}}).status, 404);
}

TEST_F(DatasetsTest, ResolvesWhatAJobMayRead) {
  const std::string id = create("corpus");
  const std::string version(measured(id).at("id").as_string());
  auto by = [&](const DatasetName& name, const char* user = "2") {
    return datasets_->resolve(user, std::string_view(user) == "1", name);
  };
  EXPECT_EQ(by({.version_id = version})->host_path, p_.files().host_path({"2"}) + "/data");
  EXPECT_EQ(by({.id = id})->version_id, version);
  EXPECT_EQ(by({.name = "corpus"})->version_id, version);
  EXPECT_EQ(by({.version_id = version}, "1")->dataset_id, id);
  const auto hidden = by({.version_id = version, .version_field = "v"}, "3").error();
  EXPECT_EQ(hidden.code, Code::not_found);
  EXPECT_EQ(hidden.violations.at(0).field, "v");
  EXPECT_EQ(by({.name = "corpus"}, "3").error().code, Code::not_found);
  EXPECT_EQ(by({}).error().code, Code::invalid_argument);
  EXPECT_EQ(by({.version_id = version, .id = "x"}).error().code, Code::invalid_argument);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/datasets/" + id, "3", {{"public", true}}).status, 404);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/datasets/" + id, "2", {{"public", true}}).status, 200);
  EXPECT_EQ(by({.name = "corpus"}, "3")->version_id, version);
  EXPECT_EQ(p_.send("PATCH", "/api/v1/datasets/" + id, "3", {{"public", false}}).status, 403);
  EXPECT_EQ(p_.send("GET", "/api/v1/datasets?name=corp", "3").json.at("items").as_array().size(), 1U);
  ASSERT_EQ(p_.send("DELETE", "/api/v1/files?path=data", "2").status, 204);
  EXPECT_EQ(by({.name = "corpus"}).error().code, Code::not_found);
}

TEST_F(DatasetsTest, DeletionIsRefusedWhileInUse) {
  const std::string id = create("corpus"), url = "/api/v1/datasets/" + id;
  const std::string version(measured(id).at("id").as_string());
  in_use_ = version;
  EXPECT_EQ(p_.send("DELETE", url + "/versions/" + version, "2").status, 409);
  in_use_ = id;
  EXPECT_EQ(p_.send("DELETE", url, "2").status, 409);
  in_use_.clear();
  EXPECT_EQ(p_.send("DELETE", url, "3").status, 404);
  EXPECT_EQ(p_.send("DELETE", url + "/versions/" + version, "2").status, 204);
  EXPECT_EQ(p_.send("DELETE", url, "2").status, 204);
  EXPECT_EQ(p_.send("GET", url, "2").status, 404);
  EXPECT_EQ(p_.content("2", "data/b"), "bb");
}

TEST_F(DatasetsTest, ListsInSlices) {
  for (int i = 0; i < 5; ++i) create("d" + std::to_string(i));
  auto page = p_.send("GET", "/api/v1/datasets?pageSize=3", "2");
  EXPECT_EQ(page.json.at("items").at(0).at("name"), "d4");
  const std::string cursor(page.json.at("nextCursor").as_string());
  page = p_.send("GET", "/api/v1/datasets?pageSize=3&cursor=" + cursor, "2");
  EXPECT_EQ(page.json.at("items").as_array().size(), 2U);
  EXPECT_TRUE(page.json.at("nextCursor").is_null());
}

}  // namespace
}  // namespace lathe::datasets
