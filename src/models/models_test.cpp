#include "models/models.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "db/query_plan.h"
#include "files/testing.h"
#include "models/models_store.h"

namespace lathe::models {
namespace {

using files::testing::Platform;
using files::testing::Reply;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

/// Knows one image.
class FakeImages final : public images::Images {
 public:
  Result<images::ImageRef> resolve(std::string_view, bool, std::string_view text,
                                   std::string_view field) override {
    images::ImageRef ref;
    if (text == "host") return ref;
    if (text != "dzq/45:1.0") {
      Error error = not_found({"镜像", "image"}, text);
      error.violations = {{std::string(field), {"不存在", "does not exist"}}};
      return error;
    }
    ref = {
        .kind = images::ImageRef::Kind::oci, .id = "image45", .name = "dzq/45", .tag = "1.0", .size = 2048};
    return ref;
  }
  std::string layout_path() const override { return {}; }
  Result<std::unique_ptr<images::Export>> open_export(std::string_view digest, std::string_view) override {
    return not_found({"镜像", "image"}, digest);
  }
  Result<std::unique_ptr<http::Handler>> make_registry(images::RegistryOptions) override {
    return std::unique_ptr<http::Handler>();
  }
  void guard_deletion(DeletionGuard guard) override { guards.push_back(std::move(guard)); }
  void add_uses(Uses) override {}
  void uses_are_told() override {}
  void on_change(std::function<void(std::string_view)>) override {}
  Result<void> start() override { return {}; }
  void stop() override {}
  void add_routes(http::Api&) override {}
  quotas::Storage storage_of(db::Transaction&, std::string_view) override { return {}; }

  std::vector<DeletionGuard> guards;
};

/// What user 2's jobs have left behind.
class FakeOutputs final : public TrainingOutputs {
 public:
  Result<TrainingOutput> output_of(std::string_view id, const http::Identity& who,
                                   std::string_view field) override {
    const auto it = outputs.find(std::string(id));
    if (it != outputs.end() && (who.admin || who.user_id == it->second.user_id)) return it->second;
    Error error = not_found({"任务", "job"}, id);
    error.violations = {{std::string(field), {"不存在", "does not exist"}}};
    return error;
  }
  std::map<std::string, TrainingOutput> outputs;
};

class ModelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    platform_.also([this] { open(); }, [this] { models_.reset(); });
  }
  void open() {
    images_ = std::make_unique<FakeImages>();
    models_ =
        Models::open(platform_.db(), platform_.accounts(), platform_.files(), *images_, platform_.audit(),
                     platform_.ids(), platform_.clock(), {platform_.host("models"), 2})
            .value();
    platform_.quotas().add_source(static_cast<quotas::StorageSource&>(*models_));
    models_->set_training_outputs(outputs_);
    models_->guard_deletion([this](db::Transaction&, std::string_view id) -> Result<void> {
      if (id != in_use_) return {};
      return Error{Code::failed_precondition, {"正被任务 7 使用", "job 7 uses it"}};
    });
    models_->on_change([this](std::string_view) {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
    models_->add_routes(platform_.api());
    const auto running = started_ ? models_->start() : Result<void>();
    EXPECT_TRUE(running.ok());
  }
  void put(const std::string& path, const std::string& content, const std::string& user = "2") {
    const std::string host = platform_.files().root({user, files::Scope::private_files}).value().host_path();
    const std::filesystem::path file = host + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }
  static std::string safetensors(const std::string& header, std::size_t data) {
    std::string out(8, '\0');
    for (int i = 0; i < 8; ++i)
      out[static_cast<std::size_t>(i)] = static_cast<char>(header.size() >> (8 * i) & 255);
    return out + header + std::string(data, 'x');
  }
  void put_model(const std::string& folder) {
    put(folder + "/config.json",
        R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","torch_dtype":"float32"})");
    put(folder + "/model.safetensors",
        safetensors(R"({"w":{"dtype":"F32","shape":[500,2],"data_offsets":[0,4000]}})", 4000));
    put(folder + "/sub/notes.txt", "hello");
  }
  static Json version(const std::string& number, const std::string& path) {
    return {{"version", number}, {"source", 3}, {"savePath", path}};
  }
  static Json request(const std::string& name, boost::json::array versions) {
    return {{"application", {{"name", name}}}, {"aiApplicationVersionList", std::move(versions)}};
  }
  Reply create(const Json& body, const std::string& user = "2") {
    return platform_.send("POST", "/model/aiApplication/createAiApplication", user, body);
  }
  /// Creates one version and gives its id.
  std::string add(const std::string& name, const std::string& number, const std::string& path) {
    const Reply reply = create(request(name, {version(number, path)}));
    EXPECT_EQ(reply.status, 200) << reply.body;
    return std::string(reply.json.at("data").at("aiApplicationVersionList").at(0).at("id").as_string());
  }
  Json detail(const std::string& id, const std::string& user = "2") {
    const Reply reply = platform_.send(
        "GET", "/model/aiApplicationVersion/getAiApplicationVersionDetail?aiApplicationVersionId=" + id,
        user);
    return reply.json.at("data");
  }
  /// Waits until it is imported, one way or the other.
  Json await(const std::string& id) {
    std::unique_lock lock(mutex_);
    const bool ended = changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      const auto version = models_->version(id);
      return !version.ok() || version->state != State::importing;
    });
    EXPECT_TRUE(ended) << id;
    lock.unlock();
    return detail(id);
  }
  /// Waits until the files of all that was deleted are gone.
  void await_removals() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      return platform_.db()
          .read([](db::Transaction& tx) -> Result<bool> { return store::removals(tx).empty(); })
          .value();
    }));
  }
  static std::vector<std::string> keys(const Json& object) {
    std::vector<std::string> out;
    for (const auto& item : object.as_object()) out.emplace_back(item.key());
    return out;
  }

  Platform platform_;
  FakeOutputs outputs_;
  std::unique_ptr<FakeImages> images_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string in_use_;
  bool started_ = true;
  std::unique_ptr<Models> models_;  // its threads tell of changes until it ends
};

TEST_F(ModelsTest, TheDocumentedExampleAsItIsWritten) {
  put_model("lightgbm");
  const Json example = json::parse(R"({
    "application":{"name":"11","createUser":"2","description":"","userName":"zjm","type":"LLM","developer":"","loginUser":1},
    "aiApplicationVersionList":[{"applicationName":"11","createUser":"2","userName":"zjm","description":"",
      "version":"0.0.1","source":"3","trainTaskVersionId":"","llmFineTuneTaskId":"","image":"","imageType":"",
      "framework":12,"saveType":2,"savePath":"/lightgbm","configSaveType":2,"label":"","scale":"","modelStructure":"",
      "loginUser":1}],
    "hyperParameterList":[]})")
                           .value();
  const Reply reply = create(example);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.json.at("code"), Json(200));
  EXPECT_EQ(reply.json.at("success"), Json(true));
  EXPECT_EQ(reply.json.at("message"), Json("success"));
  const Json& data = reply.json.at("data");
  EXPECT_THAT(keys(data.at("application")),
              UnorderedElementsAreArray({"id", "createUser", "name", "description", "createTime", "userName",
                                         "modifiedTime", "isDelete", "type", "developer", "loginUser",
                                         "aiApplicationVersionsCount", "aiApplicationVersionsSize",
                                         "latestVersion", "status"}));
  EXPECT_EQ(data.at("application").at("createUser"), Json("2"));
  EXPECT_EQ(data.at("application").at("loginUser"), Json(1));
  EXPECT_EQ(data.at("application").at("aiApplicationVersionsCount"), Json(1));
  EXPECT_EQ(data.at("application").at("latestVersion"), Json("0.0.1"));
  EXPECT_EQ(data.at("hyperParameterList"), Json(boost::json::array{}));
  const Json& made = data.at("aiApplicationVersionList").at(0);
  for (const char* key : {"id",
                          "createUser",
                          "createTime",
                          "version",
                          "metrics",
                          "use",
                          "softVersion",
                          "description",
                          "source",
                          "image",
                          "framework",
                          "frameworkStyle",
                          "saveType",
                          "savePath",
                          "trainTaskVersionId",
                          "llmFineTuneTaskId",
                          "size",
                          "applicationId",
                          "applicationName",
                          "userName",
                          "modifiedTime",
                          "hideSourcePath",
                          "status",
                          "deployJson",
                          "label",
                          "parameters",
                          "originalParameters",
                          "fromMarket",
                          "configPath",
                          "configSaveType",
                          "preDeployLabel",
                          "parameterStatus",
                          "isDelete",
                          "scale",
                          "hyperParameterList",
                          "modelStructure",
                          "imageType",
                          "loginUser",
                          "absolutePath"})
    EXPECT_TRUE(made.as_object().contains(key)) << key;
  EXPECT_EQ(made.at("source"), Json(3));
  EXPECT_EQ(made.at("status"), Json(1));
  EXPECT_EQ(made.at("framework"), Json(12));
  EXPECT_TRUE(made.at("imageType").is_null());
  EXPECT_TRUE(made.at("absolutePath").is_null());
  EXPECT_TRUE(made.at("size").is_double());
  EXPECT_EQ(made.at("preDeployLabel").as_string().size(), 32U);
  EXPECT_EQ(made.at("applicationId"), data.at("application").at("id"));

  const Json done = await(std::string(made.at("id").as_string()));
  EXPECT_EQ(done.at("status"), Json(2)) << json::print(done);
  EXPECT_EQ(done.at("scale"), Json("1K"));
  EXPECT_EQ(done.at("modelStructure"), Json("LlamaForCausalLM"));
  EXPECT_EQ(done.at("parameterStatus"), Json(2));
  EXPECT_EQ(done.at("dtype"), Json("F32"));
  EXPECT_EQ(done.at("format"), Json("safetensors"));
  EXPECT_EQ(done.at("size"), made.at("size"));
  EXPECT_EQ(done.at("progress"), Json(100.0));
  EXPECT_EQ(done.at("hyperParameterList"), Json("[]"));
  EXPECT_EQ(json::parse(done.at("parameters").as_string()).value().at("parameterCount"), Json(1000));
  EXPECT_EQ(done.at("application").at("name"), Json("11"));
  const std::string folder(done.at("absolutePath").as_string());
  EXPECT_TRUE(std::filesystem::is_regular_file(folder + "/model.safetensors"));
  EXPECT_TRUE(std::filesystem::is_regular_file(folder + "/sub/notes.txt"));
  EXPECT_TRUE(std::filesystem::is_empty(platform_.host("models/.staging")));

  const auto found = models_->version(std::string(done.at("id").as_string()));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->root + "/" + found->path, folder);
  EXPECT_EQ(found->full_name(), "11:0.0.1");
  EXPECT_EQ(found->facts.architecture, "LlamaForCausalLM");
}

TEST_F(ModelsTest, AKnownNameGetsFurtherVersions) {
  put_model("m");
  put("one.gguf.txt", "a single file");
  const std::string first = add("llama", "1.0", "m");
  const std::string second = add("llama", "1.1", "/one.gguf.txt");
  EXPECT_EQ(await(first).at("applicationId"), await(second).at("applicationId"));
  const std::string model(detail(first).at("applicationId").as_string());
  EXPECT_TRUE(std::filesystem::is_regular_file(std::string(detail(second).at("absolutePath").as_string()) +
                                               "/one.gguf.txt"));

  const Reply versions = platform_.send(
      "GET", "/model/aiApplicationVersion/getAiApplicationVersionList?aiApplicationId=" + model, "2");
  ASSERT_EQ(versions.json.at("data").as_array().size(), 2U);
  EXPECT_EQ(versions.json.at("data").at(0).at("id"), Json(second));  // newest first

  const Reply shown =
      platform_.send("GET", "/api/model/aiApplication/getAiApplicationDetail?aiApplicationId=" + model, "2");
  EXPECT_EQ(shown.json.at("data").at("aiApplicationVersionsCount"), Json(2));
  EXPECT_EQ(shown.json.at("data").at("latestVersion"), Json("1.1"));
  EXPECT_EQ(shown.json.at("data").at("status"), Json(2));

  const Reply again = create(request("llama", {version("1.2", "m"), version("1.1", "m")}));
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.json.at("code"), Json(409));
  EXPECT_TRUE(again.json.at("data").is_null());
  EXPECT_THAT(std::string(again.json.at("message").as_string()),
              HasSubstr("aiApplicationVersionList[1].version exists already: 1.1"));
  EXPECT_EQ(create(request("llama", {})).status, 409);
  // All or none: 1.2 was not made either.
  EXPECT_EQ(add("llama", "1.2", "m").size(), 32U);
  // Another user's model may have the same name.
  put_model("m");
  put("x/config.json", "{}", "3");
  EXPECT_EQ(create(request("llama", {version("1.0", "x")}), "3").status, 200);
}

TEST_F(ModelsTest, WhatIsWrongIsNamedAndNothingIsMade) {
  put_model("m");
  struct Case {
    Json body;
    int status;
    std::string says;
  };
  const auto one = [](Json version) { return request("bad", {std::move(version)}); };
  const Case cases[] = {
      {one(version("1", "nowhere")), 404, "aiApplicationVersionList[0].savePath"},
      {request("bad", {version("1", "m"), version("2", "nowhere")}), 404,
       "aiApplicationVersionList[1].savePath"},
      {one(version("1", "../../etc")), 400, "aiApplicationVersionList[0].savePath"},
      {one(version("1/2", "m")), 400, "aiApplicationVersionList[0].version"},
      {one({{"source", 3}, {"savePath", "m"}}), 400, "aiApplicationVersionList[0].version"},
      {one({{"version", "1"}, {"savePath", "m"}}), 400, "aiApplicationVersionList[0].source"},
      {one({{"version", "1"}, {"source", 4}}), 400, "aiApplicationVersionList[0].source"},
      {one({{"version", "1"}, {"source", 3}}), 400, "aiApplicationVersionList[0].savePath"},
      {one({{"version", "1"}, {"source", 3}, {"savePath", "m"}, {"saveType", 1}}), 400,
       "aiApplicationVersionList[0].saveType"},
      {one({{"version", "1"}, {"source", 2}}), 400, "aiApplicationVersionList[0].image"},
      {one({{"version", "1"}, {"source", 2}, {"image", "none"}}), 404, "aiApplicationVersionList[0].image"},
      {one({{"version", "1"}, {"source", 1}}), 400, "aiApplicationVersionList[0].llmFineTuneTaskId"},
      {one({{"version", "1"}, {"source", 1}, {"trainTaskVersionId", "7"}}), 404,
       "aiApplicationVersionList[0].trainTaskVersionId"},
      {one({{"version", "1"}, {"source", 3}, {"savePath", "m"}, {"configPath", "no.json"}}), 404,
       "aiApplicationVersionList[0].configPath"},
      {one({{"version", "1"}, {"source", 3}, {"savePath", "m"}, {"applicationName", "other"}}), 400,
       "aiApplicationVersionList[0].applicationName"},
      {one({{"version", "1"}, {"source", 3}, {"savePath", "m"}, {"createUser", "3"}}), 403,
       "aiApplicationVersionList[0].createUser"},
      {request("bad", {version("1", "m"), version("1", "m")}), 409, "aiApplicationVersionList[1].version"},
      {request("", {version("1", "m")}), 400, "application.name"},
      {request("a;b", {version("1", "m")}), 400, "application.name"},
      {{{"application", {{"name", "bad"}, {"createUser", "3"}}}}, 403, "application.createUser"},
      {{{"application", "x"}}, 400, "application"},
      {{{"application", {{"name", "bad"}}}, {"hyperParameterList", {{{"type", "int"}}}}},
       400,
       "hyperParameterList[0].paramName"},
  };
  for (const Case& each : cases) {
    const Reply reply = create(each.body);
    EXPECT_EQ(reply.status, each.status) << json::print(each.body) << reply.body;
    EXPECT_EQ(reply.json.at("code"), Json(each.status));
    EXPECT_THAT(std::string(reply.json.at("message").as_string()), HasSubstr(each.says))
        << json::print(each.body);
  }
  const Reply list =
      platform_.send("POST", "/model/aiApplication/getAiApplicationList", "2", boost::json::object{});
  EXPECT_EQ(list.json.at("data").at("total"), Json(0));
}

TEST_F(ModelsTest, ListsArePagedFilteredAndOnesOwn) {
  std::vector<std::string> names = {"Qwen2-7B", "Llama-3", "qwen_100+"};
  for (const auto& name : names)
    ASSERT_EQ(create({{"application", {{"name", name}, {"type", name == "Llama-3" ? "LLM" : "CV"}}}}).status,
              200);
  ASSERT_EQ(create({{"application", {{"name", "other"}}}}, "3").status, 200);
  const auto list = [&](const std::string& user, const Json& body) {
    const Reply reply = platform_.send("POST", "/model/aiApplication/getAiApplicationList", user, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    std::string out = std::to_string(reply.json.at("data").at("total").as_int64()) + ":";
    for (const auto& row : reply.json.at("data").at("rows").as_array())
      out += " " + std::string(row.at("name").as_string());
    return out;
  };
  EXPECT_EQ(list("2", {{"pageNum", 0}, {"pageSize", 0}, {"queryInfo", boost::json::object{}}}),
            "3: qwen_100+ Llama-3 Qwen2-7B");
  EXPECT_EQ(list("2", {{"pageNum", 2}, {"pageSize", 2}}), "3: Qwen2-7B");
  EXPECT_EQ(list("2", {{"pageNum", 9}, {"pageSize", 2}}), "3:");
  EXPECT_EQ(list("2", {{"queryInfo", {{"name", "QWEN"}}}}), "2: qwen_100+ Qwen2-7B");
  EXPECT_EQ(list("2", {{"queryInfo", {{"name", "n_1"}}}}), "1: qwen_100+");
  EXPECT_EQ(list("2", {{"queryInfo", {{"name", "0+"}, {"type", "CV"}}}}), "1: qwen_100+");
  EXPECT_EQ(list("2", {{"queryInfo", {{"name", "%"}}}}), "0:");
  EXPECT_EQ(list("3", {{"queryInfo", nullptr}}), "1: other");
  EXPECT_EQ(list("1", boost::json::object{}), "4: other qwen_100+ Llama-3 Qwen2-7B");
  EXPECT_EQ(list("1", {{"queryInfo", {{"createUser", "3"}}}}), "1: other");
  EXPECT_EQ(platform_
                .send("POST", "/model/aiApplication/getAiApplicationList", "2",
                      {{"queryInfo", {{"createUser", "3"}}}})
                .status,
            403);

  Reply slice = platform_.send("GET", "/api/v1/models?pageSize=2", "2");
  ASSERT_EQ(slice.json.at("items").as_array().size(), 2U);
  EXPECT_EQ(slice.json.at("items").at(0).at("name"), Json("qwen_100+"));
  slice = platform_.send(
      "GET", "/api/v1/models?pageSize=2&cursor=" + std::string(slice.json.at("nextCursor").as_string()), "2");
  ASSERT_EQ(slice.json.at("items").as_array().size(), 1U);
  EXPECT_TRUE(slice.json.at("nextCursor").is_null());
}

TEST_F(ModelsTest, DamageIsToldAndNothingIsLeftOrCharged) {
  put("cut/model.safetensors", safetensors(R"({"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}})", 30));
  const std::string id = add("cut", "1", "cut");
  const Json failed = await(id);
  EXPECT_EQ(failed.at("status"), Json(3));
  EXPECT_EQ(failed.at("failReason"), Json("model.safetensors: the file is incomplete: 6 bytes are missing"));
  EXPECT_TRUE(failed.at("absolutePath").is_null());
  EXPECT_FALSE(std::filesystem::exists(platform_.host("models/2/" + id)));
  const auto stored = platform_.db().read(
      [&](db::Transaction& tx) -> Result<quotas::Storage> { return models_->storage_of(tx, "2"); });
  EXPECT_EQ(stored->bytes, 0);
  const auto version = models_->version(id);
  EXPECT_EQ(version->state, State::failed);
  EXPECT_THAT(version->failure.zh, HasSubstr("缺少 6 字节"));
}

TEST_F(ModelsTest, StorageIsChargedAndTheQuotaHolds) {
  put_model("m");
  await(add("m", "1", "m"));
  const auto stored = platform_.db().read(
      [&](db::Transaction& tx) -> Result<quotas::Storage> { return models_->storage_of(tx, "2"); });
  const std::int64_t once = stored->bytes;
  EXPECT_GT(once, 4000);
  EXPECT_EQ(stored->inodes, 5);
  const auto with_models = platform_.db().read(
      [&](db::Transaction& tx) -> Result<quotas::Storage> { return platform_.quotas().storage_of(tx, "2"); });
  EXPECT_GE(with_models->bytes, once);
  ASSERT_EQ(
      platform_.send("PUT", "/api/v1/users/2/quota", "1", {{"storageBytes", with_models->bytes + 10}}).status,
      200);
  const Reply refused = create(request("m", {version("2", "m")}));
  EXPECT_EQ(refused.status, 507) << refused.body;
  EXPECT_EQ(refused.json.at("code"), Json(507));
}

TEST_F(ModelsTest, OthersDoNotSeeIt) {
  put_model("m");
  const std::string id = add("m", "1", "m");
  const std::string model(await(id).at("applicationId").as_string());
  for (const std::string& path :
       {"/model/aiApplication/getAiApplicationDetail?aiApplicationId=" + model,
        "/model/aiApplicationVersion/getAiApplicationVersionList?aiApplicationId=" + model,
        "/model/aiApplicationVersion/getAiApplicationVersionDetail?aiApplicationVersionId=" + id,
        "/api/v1/models/" + model, "/api/v1/models/" + model + "/versions", "/api/v1/model-versions/" + id}) {
    EXPECT_EQ(platform_.send("GET", path, "3").status, 404) << path;
    EXPECT_EQ(platform_.send("GET", path, "2").status, 200) << path;
    EXPECT_EQ(platform_.send("GET", path, "1").status, 200) << path;
  }
  for (const std::string& path : {"/api/v1/models/" + model, "/api/v1/model-versions/" + id}) {
    EXPECT_EQ(platform_.send("DELETE", path, "3").status, 404) << path;
    EXPECT_EQ(platform_.send("PATCH", path, "3", {{"description", "x"}}).status, 404) << path;
  }
  EXPECT_FALSE(models_->version(id, {"3", "dzq", false}, "modelVersionId").ok());
  EXPECT_TRUE(models_->version(id, {"2", "zjm", false}, "modelVersionId").ok());
  EXPECT_EQ(platform_.send("GET", "/model/aiApplication/getAiApplicationDetail", "2").status, 400);
}

TEST_F(ModelsTest, ImagesAndTrainingOutputsAreSources) {
  Reply reply = create({{"application", {{"name", "imaged"}}},
                        {"aiApplicationVersionList",
                         {{{"version", "1"}, {"source", 2}, {"image", "dzq/45:1.0"}, {"imageType", "1"}}}}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const Json& imaged = reply.json.at("data").at("aiApplicationVersionList").at(0);
  EXPECT_EQ(imaged.at("imageType"), Json(1));
  const std::string image_version(imaged.at("id").as_string());
  const Json done = await(image_version);
  EXPECT_EQ(done.at("status"), Json(2));
  EXPECT_TRUE(done.at("hideSourcePath").is_null());
  EXPECT_EQ(done.at("size"), Json(2.0));
  EXPECT_EQ(models_->version(image_version)->root, "");
  // The image cannot go while a model is made of it.
  const auto guard = [&](const char* tag) {
    return platform_.db().read(
        [&](db::Transaction& tx) { return images_->guards.at(0)(tx, "image45", tag); });
  };
  EXPECT_FALSE(guard("").ok());
  EXPECT_FALSE(guard("1.0").ok());
  EXPECT_TRUE(guard("2.0").ok());

  std::filesystem::create_directories(platform_.host("jobs/7/out"));
  std::ofstream(platform_.host("jobs/7/out/config.json")) << R"({"model_type":"llama"})";
  outputs_.outputs["job7"] = {platform_.host("jobs"), "7/out", "2", "dzq/45:1.0", R"({"perplexity":5})"};
  reply = create(
      {{"application", {{"name", "tuned"}}},
       {"aiApplicationVersionList", {{{"version", "1"}, {"source", "1"}, {"llmFineTuneTaskId", "job7"}}}}});
  ASSERT_EQ(reply.status, 200) << reply.body;
  const std::string tuned(reply.json.at("data").at("aiApplicationVersionList").at(0).at("id").as_string());
  const Json ready = await(tuned);
  EXPECT_EQ(ready.at("status"), Json(2)) << json::print(ready);
  EXPECT_EQ(ready.at("metrics"), Json(R"({"perplexity":5})"));
  EXPECT_EQ(ready.at("image"), Json("dzq/45:1.0"));
  EXPECT_TRUE(std::filesystem::exists(std::string(ready.at("absolutePath").as_string()) + "/config.json"));
  const std::vector<std::string> asked = {"job6", "job7"};
  const auto taken = models_->versions_of_outputs(asked);
  ASSERT_EQ(taken->size(), 1U);
  EXPECT_EQ((*taken)[0].id, tuned);
  // Somebody else's job is nobody's.
  EXPECT_EQ(create({{"application", {{"name", "stolen"}}},
                    {"aiApplicationVersionList",
                     {{{"version", "1"}, {"source", "1"}, {"llmFineTuneTaskId", "job7"}}}}},
                   "3")
                .status,
            404);
}

TEST_F(ModelsTest, WhatWasUnderWayIsFinishedAfterARestart) {
  put_model("m");
  started_ = false;
  platform_.start();
  const std::string id = add("m", "1", "m");
  const std::string renamed = add("m", "2", "m");
  EXPECT_EQ(detail(id).at("status"), Json(1));
  // A server killed in the middle of a copy, and one killed after the rename.
  std::filesystem::create_directories(platform_.host("models/.staging/" + id));
  std::ofstream(platform_.host("models/.staging/" + id + "/model.safetensors")) << "half";
  std::filesystem::create_directories(platform_.host("models/2/" + renamed));
  std::ofstream(platform_.host("models/2/" + renamed + "/config.json")) << R"({"model_type":"found"})";
  started_ = true;
  platform_.start();
  EXPECT_EQ(await(id).at("status"), Json(2));
  EXPECT_EQ(await(id).at("scale"), Json("1K"));
  EXPECT_EQ(await(renamed).at("modelStructure"), Json("found"));
  EXPECT_TRUE(std::filesystem::is_empty(platform_.host("models/.staging")));
}

TEST_F(ModelsTest, DeletionTakesTheFilesAndRefusesWhatIsInUse) {
  put_model("m");
  const std::string first = add("m", "1", "m"), second = add("m", "2", "m");
  const std::string model(await(first).at("applicationId").as_string());
  await(second);
  in_use_ = second;
  const Reply refused = platform_.send("DELETE", "/api/v1/models/" + model, "2");
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(refused.body, HasSubstr("job 7 uses it"));
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/model-versions/" + second, "2").status, 409);
  EXPECT_EQ(detail(first).at("status"), Json(2));  // none of it was done

  EXPECT_EQ(platform_.send("DELETE", "/api/v1/model-versions/" + first, "2").status, 204);
  EXPECT_EQ(platform_.send("GET", "/api/v1/model-versions/" + first, "2").status, 404);
  // The number is free again at once.
  await(add("m", "1", "m"));
  in_use_.clear();
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/models/" + model, "2").status, 204);
  EXPECT_EQ(platform_.send("GET", "/api/v1/models/" + model, "2").status, 404);
  await_removals();
  EXPECT_FALSE(std::filesystem::exists(platform_.host("models/2/" + first)));
  EXPECT_FALSE(std::filesystem::exists(platform_.host("models/2/" + second)));
  EXPECT_EQ(
      platform_.db()
          .read([&](db::Transaction& tx) -> Result<quotas::Storage> { return models_->storage_of(tx, "2"); })
          ->bytes,
      0);
  // A user with models stays.
  add("n", "1", "m");
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/users/2", "1").status, 409);
}

TEST_F(ModelsTest, DeletionBreaksAnImportOff) {
  put_model("m");
  started_ = false;
  platform_.start();
  const std::string id = add("m", "1", "m");
  EXPECT_EQ(platform_.send("DELETE", "/api/v1/model-versions/" + id, "2").status, 204);
  started_ = true;
  platform_.start();
  await_removals();
  await(add("m", "2", "m"));
  EXPECT_FALSE(std::filesystem::exists(platform_.host("models/2/" + id)));
}

TEST_F(ModelsTest, TemplatesAndDescriptionsAreKept) {
  put_model("m");
  Json body = request("m", {version("1", "m")});
  body.as_object()["hyperParameterList"] =
      json::parse(
          R"([{"edit":true,"paramName":"learning_rate","type":"double","value":"1e-4","valueRange":[0,1]}])")
          .value();
  const Reply made = create(body);
  ASSERT_EQ(made.status, 200) << made.body;
  EXPECT_EQ(made.json.at("data").at("hyperParameterList"), body.at("hyperParameterList"));
  const std::string id(made.json.at("data").at("aiApplicationVersionList").at(0).at("id").as_string());
  const Json done = await(id);
  EXPECT_EQ(json::parse(done.at("hyperParameterList").as_string()).value(), body.at("hyperParameterList"));
  const std::string model(done.at("applicationId").as_string());

  Reply patched =
      platform_.send("PATCH", "/api/v1/models/" + model, "2", {{"name", "renamed"}, {"description", "d"}});
  EXPECT_EQ(patched.json.at("name"), Json("renamed"));
  EXPECT_EQ(patched.json.at("hyperParameters").as_array().size(), 1U);
  EXPECT_EQ(patched.json.at("versionCount"), Json(1));
  ASSERT_EQ(create({{"application", {{"name", "taken"}}}}).status, 200);
  EXPECT_EQ(platform_.send("PATCH", "/api/v1/models/" + model, "2", {{"name", "taken"}}).status, 409);
  patched = platform_.send("PATCH", "/api/v1/model-versions/" + id, "2", {{"label", "best"}});
  EXPECT_EQ(patched.json.at("label"), Json("best"));
  EXPECT_EQ(patched.json.at("modelName"), Json("renamed"));
  EXPECT_EQ(patched.json.at("state"), Json("ready"));
  EXPECT_EQ(patched.json.at("source"), Json("path"));
  EXPECT_EQ(patched.json.at("details").at("parameterCount"), Json(1000));
}

TEST_F(ModelsTest, ListsOfAHundredThousandAreAnsweredFromIndexes) {
  constexpr int kModels = 100'000;
  const auto filled = platform_.db().write([](db::Transaction& tx) -> Result<void> {
    // Written by one statement: this is about reading.
    tx.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
        "INSERT INTO models SELECT printf('%032d', i), CAST(i % 50 AS TEXT), 'name ' || i, 'name ' || i, "
        "'d', "
        "CASE i % 2 WHEN 0 THEN 'LLM' ELSE 'other' END, '', '[]', i, i FROM n");
    return {};
  });
  ASSERT_TRUE(filled.ok());
  const auto plan = [&](const std::string& sql, std::vector<db::Value> args) {
    return platform_.db()
        .read(
            [&](db::Transaction& tx) -> Result<std::string> { return db::explain(tx, sql, std::move(args)); })
        .value();
  };
  using store::Filter;
  const std::int64_t ten = 10;
  std::vector<std::pair<std::string, std::string>> plans = {
      {"page of all", plan(store::page_query({}), {ten, ten})},
      {"page of one", plan(store::page_query({.user_id = "2"}), {"2", ten, ten})},
      {"filtered",
       plan(store::page_query({.user_id = "2", .name = "q", .type = "LLM"}), {"2", "LLM", "%q%", ten, ten})},
      {"filtered of all",
       plan(store::page_query({.user_id = {}, .name = "q", .type = {}}), {"%q%", ten, ten})},
      {"count", plan(store::count_query({.user_id = "2"}), {"2"})},
      {"count filtered", plan(store::count_query({.user_id = "2", .name = "q", .type = {}}), {"2", "%q%"})},
      {"slice", plan(store::slice_query({.user_id = "2"}), {"2", "~", ten})},
      {"summaries", plan(store::summaries_query(2), {"a", "b"})},
  };
  for (const auto& [what, text] : plans) {
    EXPECT_TRUE(db::uses_indexes_only(text)) << what << "\n" << text;
  }
  const store::Filter filters[] = {{}, {.user_id = "8"}, {.user_id = "8", .name = "name 1", .type = "LLM"}};
  for (const auto& filter : filters) {
    const auto timed = platform_.db().read([&](db::Transaction& tx) -> Result<void> {
      const std::int64_t total = store::count_models(tx, filter);
      EXPECT_GT(total, 0);
      EXPECT_LE(total, kModels);
      for (const std::int64_t offset : {std::int64_t{0}, total / 2, total - 10}) {
        const auto began = std::chrono::steady_clock::now();
        EXPECT_EQ(store::page(tx, filter, 10, offset).size(), 10U);
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
        // A generous bound: a list that sorts or reads the table takes far longer even on a busy machine.
        EXPECT_LT(took.count(), 250) << "offset " << offset;
        RecordProperty(fmt::format("ms_at_{}", offset), fmt::format("{:.2f}", took.count()));
      }
      return {};
    });
    EXPECT_TRUE(timed.ok());
  }
}

}  // namespace
}  // namespace lathe::models
