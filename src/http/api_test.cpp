#include "http/api.h"

#include <gtest/gtest.h>

namespace lathe::http {
namespace {

struct Widget {
  std::string id, name;
  std::int64_t count = 1;
};
void fields(Fields& f, Widget& w) {
  f.field("id", w.id);
  f.field("name", w.name, {.doc = "its name", .required = true});
  f.field("count", w.count, {.min = 1, .max = 9});
}

class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    api_.add<Widget, Widget>({.method = Method::post,
                              .path = "/docker/image/upload",
                              .access = Access::user,
                              .id = "createWidget",
                              .tag = "widgets",
                              .summary = "Create a widget",
                              .envelope = &kImageEnvelope,
                              .success_message = "新增镜像成功",
                              .section = "2.1"},
                             [](Call& call, Widget widget) -> Result<Widget> {
                               widget.id = call.new_id();
                               return widget;
                             });
    api_.add<Widget, Nothing>({.method = Method::get,
                               .path = "/api/v1/widgets/{id}",
                               .access = Access::admin,
                               .id = "getWidget",
                               .tag = "widgets",
                               .summary = "Show a widget"},
                              [this](Call&, Widget widget) -> Result<Nothing> {
                                seen_ = widget.id + "/" + widget.name;
                                return Nothing{};
                              });
  }

  Response send(Method method, std::string path, std::string body = {}, std::string token = "user") {
    Request request;
    request.method = method;
    request.path = std::move(path);
    request.body = std::move(body);
    request.language = Language::en;
    if (!token.empty()) request.headers.add("Authorization", token);
    if (!key_.empty()) request.headers.add("Idempotency-Key", key_);
    request.query = query_;
    return api_.handle(request);
  }
  static std::string body(const Response& response) { return std::get<std::string>(response.body); }

  SystemClock clock_;
  Uuid7Source ids_{clock_};
  std::string key_, seen_;
  std::vector<std::pair<std::string, std::string>> query_;
  Api api_{{.authenticate = [](const Request& r) -> Result<Identity> {
              const auto token = r.headers.get("authorization");
              if (token == "user") return Identity{"2", "u", false};
              if (token == "admin") return Identity{"1", "a", true};
              return Identity{};
            },
            .ids = &ids_,
            .reserve_id = [](const Identity&, std::string_view key, std::string_view,
                             std::string_view) -> Result<std::string> { return "id-of-" + std::string(key); },
            .observe = {}}};
};

TEST_F(ApiTest, DocumentedPathsAnswerWithAndWithoutThePrefix) {
  for (const char* path : {"/docker/image/upload", "/api/docker/image/upload"}) {
    const auto response = send(Method::post, path, R"({"name":"x"})");
    EXPECT_EQ(response.status, 200) << body(response);
    EXPECT_NE(body(response).find(R"("success":true,"errorCode":200,"message":"新增镜像成功","result":{)"),
              std::string::npos)
        << body(response);
  }
  EXPECT_EQ(send(Method::get, "/v1/widgets/7", {}, "admin").status, 404);
}

TEST_F(ApiTest, EveryWrongFieldIsNamedInTheFamilysEnvelope) {
  const auto response = send(Method::post, "/docker/image/upload", R"({"count":"77"})");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(body(response),
            R"({"success":false,"errorCode":701,"message":"invalid request: name is required; )"
            R"(count must be a whole number from 1 to 9","result":null})");
}

TEST_F(ApiTest, AccessIsCheckedBeforeAnythingElse) {
  EXPECT_EQ(send(Method::post, "/docker/image/upload", "{", "").status, 401);
  EXPECT_EQ(send(Method::get, "/api/v1/widgets/7", {}, "user").status, 403);
  query_ = {{"name", "n"}, {"id", "from-query"}};
  EXPECT_EQ(send(Method::get, "/api/v1/widgets/7", {}, "admin").status, 204);
  EXPECT_EQ(seen_, "7/n");
}

TEST_F(ApiTest, UnknownPathsAndMethodsAreTold) {
  EXPECT_EQ(send(Method::get, "/kernel/nothing").status, 404);
  EXPECT_NE(body(send(Method::get, "/kernel/nothing")).find("returnCode"), std::string::npos);
  const auto response = send(Method::get, "/docker/image/upload");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers.get("allow"), "POST");
}

TEST_F(ApiTest, AnIdempotencyKeyReservesTheId) {
  key_ = "k";
  EXPECT_NE(body(send(Method::post, "/docker/image/upload", R"({"name":"x"})")).find("id-of-k"),
            std::string::npos);
}

TEST_F(ApiTest, TheDocumentHasEveryRouteOnce) {
  const std::string document = json::print(api_.openapi());
  EXPECT_NE(document.find(R"("/docker/image/upload":{"post":{"operationId":"createWidget")"),
            std::string::npos);
  EXPECT_NE(document.find(R"("in":"path","name":"id")"), std::string::npos) << document;
}

}  // namespace
}  // namespace lathe::http
