#include "gateway/gateway.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <variant>

#include "gateway/exchange.h"
#include "gateway/h2_front.h"
#include "gateway/openai.h"
#include "gateway/router.h"
#include "http/answer.h"
#include "http/connection.h"
#include "http/envelope.h"

// GCC 12 takes the coroutine frames' own operator delete for a mismatch (GCC bug 109224).
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

namespace lathe::gateway {

namespace {

constexpr int kTries = 3;
constexpr std::string_view kServe = "/serve/";

bool is_openai(std::string_view path) {
  return path == "/v1/models" || path == "/v1/chat/completions" || path == "/v1/completions" ||
         path == "/v1/embeddings";
}

/// `/serve/NAME/rest?query` as it was sent → `/rest?query`. The name itself comes from the decoded path.
std::string_view after_service(std::string_view raw) {
  if (!raw.starts_with('/')) {  // absolute-form
    const auto authority = raw.find("://");
    if (authority == std::string_view::npos) return {};
    const auto slash = raw.find('/', authority + 3);
    raw = slash == std::string_view::npos ? std::string_view{} : raw.substr(slash);
  }
  if (!raw.starts_with(kServe)) return {};
  const auto end = raw.find_first_of("/?", kServe.size());
  return end == std::string_view::npos ? std::string_view{} : raw.substr(end);
}

std::string join(std::string_view prefix, std::string_view rest) {
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  std::string out(prefix);
  if (!rest.starts_with('/')) out += '/';
  return out.append(rest);
}

class Proxy final : public Gateway, public http::IoHandler {
 public:
  Proxy(Options options, Hooks hooks) : options_(options), hooks_(std::move(hooks)) {}

  void listen(Events events) override { router_.listen(std::move(events)); }
  void set_routes(std::vector<ServiceRoute> services) override { router_.set_routes(std::move(services)); }
  void set_route(ServiceRoute service) override { router_.set_route(std::move(service)); }
  Load load() const override { return router_.registry().load(); }
  Activity activity(const std::string& upstream_id) const override {
    return router_.registry().activity(upstream_id);
  }

  http::IoHandler& io_handler() override { return *this; }

  bool wants(const http::Request& head) override {
    return head.path.starts_with(kServe) || is_openai(head.path);
  }

  bool speaks_http2() const override { return true; }
  http::Task<> serve_http2(http::Connection& connection) override {
    H2Front front(connection, options_, hooks_, router_);
    co_await front.serve();
  }

  http::Task<> serve(http::Connection& connection, const http::Request& head) override {
    const auto caller = hooks_.authenticate(head);
    if (!caller.ok()) {
      co_await refuse(connection, head, caller.error(), {});
    } else if (caller->user_id.empty()) {
      const Error error{
          Code::unauthenticated,
          {"未登录：请提供 Authorization: Bearer 令牌", "not logged in: send Authorization: Bearer TOKEN"}};
      co_await refuse(connection, head, error, {});
    } else if (head.path == "/v1/models") {
      co_await list_models(connection, head, *caller);
    } else if (is_openai(head.path)) {
      co_await serve_openai(connection, head, *caller);
    } else {
      const std::string_view below = std::string_view(head.path).substr(kServe.size());
      const std::string name(below.substr(0, below.find('/')));
      Forward forward;
      forward.target = after_service(head.raw_target);
      forward.count_tokens = is_openai(below.substr(name.size()));
      co_await forward_to(connection, head, *caller, name, forward, {});
    }
  }

 private:
  http::Task<> serve_openai(http::Connection& connection, const http::Request& head,
                            const http::Identity& caller) {
    if (head.method != http::Method::post) {
      const Error post_only{Code::invalid_argument, {"此地址只接受 POST", "this address takes POST only"}};
      co_await refuse(connection, head, post_only, {});
      co_return;
    }
    Forward forward;
    forward.body_read = forward.count_tokens = true;
    forward.target = head.path;
    const auto read = co_await read_whole(connection, forward.body);
    if (!read.ok()) {
      co_await refuse(connection, head, read.error(), {});
      co_return;
    }
    const auto model = find_model(forward.body);
    if (!model) {
      const auto error = invalid_field("model", {"应为服务的名称", "must be the name of a service"});
      co_await refuse(connection, head, error, "model");
      co_return;
    }
    co_await forward_to(connection, head, caller, *model, forward, "model");
  }

  http::Task<Result<void>> read_whole(http::Connection& connection, std::string& body) {
    const Error too_large{Code::too_large,
                          {fmt::format("请求体超过 {} 字节", options_.max_model_body),
                           fmt::format("the body is larger than {} bytes", options_.max_model_body)}};
    const http::Framing framing = connection.framing();
    if (framing.kind == http::Framing::Kind::length) {
      if (framing.length > options_.max_model_body) co_return too_large;
      body.reserve(framing.length);
    }
    std::array<char, 16 * 1024> piece;
    while (true) {
      const auto got = co_await connection.read_body(piece);
      if (!got.ok()) co_return got.error();
      if (*got == 0) co_return Result<void>();
      if (body.size() + *got > options_.max_model_body) co_return too_large;
      body.append(piece.data(), *got);
    }
  }

  http::Task<> forward_to(http::Connection& connection, const http::Request& head,
                          const http::Identity& caller, const std::string& name, Forward& forward,
                          std::string_view param) {
    const std::string rest = std::move(forward.target);
    Quest quest{.service = name,
                .caller = caller,
                .loop = connection.loop(),
                .when_left = [&connection](std::function<void()> then) {
                  then ? connection.when_left(std::move(then)) : connection.forget_leaving();
                }};
    std::optional<Error> last;
    for (int attempt = 0; attempt < kTries; ++attempt) {
      auto place = router_.find_now(quest);
      if (!place) place.emplace(co_await router_.find(quest));
      if (!place->ok()) {
        if (place->error().code == Code::cancelled) co_return;
        co_await refuse(connection, head, place->error(), param, quest.retry_after);
        co_return;
      }
      if ((*place)->grpc) {
        last = Error{Code::failed_precondition,
                     {"此服务只接受 gRPC 调用", "this service takes gRPC calls only"}};
        break;
      }
      forward.target = join((*place)->path, rest);
      note(connection, (*place)->lease);
      Exchange exchange(connection, head, options_, std::move((*place)->lease));
      const auto outcome = co_await exchange.run(forward);
      if (outcome == Exchange::Outcome::answered || outcome == Exchange::Outcome::left) {
        count(head, caller, exchange);
        co_return;
      }
      last = exchange.error();
      if (outcome == Exchange::Outcome::failed) break;
      quest.failed = exchange.lease().get();
    }
    co_await refuse(connection, head, *last, param);
  }

  static void note(http::Connection& connection, const Lease& lease) {
    if (connection.logs_access()) connection.annotate(lease->log_words);
  }

  void count(const http::Request& head, const http::Identity& caller, const Exchange& exchange) const {
    const Usage usage = exchange.usage().value_or(Usage{});
    exchange.lease()->prompt_tokens.fetch_add(usage.prompt_tokens, std::memory_order_relaxed);
    exchange.lease()->completion_tokens.fetch_add(usage.completion_tokens, std::memory_order_relaxed);
    if (hooks_.used) hooks_.used(head, caller, exchange.lease()->service_id, usage);
  }

  http::Task<> list_models(http::Connection& connection, const http::Request& head,
                           const http::Identity& caller) {
    boost::json::array data;
    const auto table = router_.registry().table();
    for (const auto& [name, service] : table->services())
      if (hooks_.may_call(caller, service->route()))
        data.push_back(boost::json::object{
            {"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", service->route().owner}});
    boost::json::object list;
    list["object"] = "list";
    list["data"] = std::move(data);
    co_await answer(connection, head, http::Response::json(200, boost::json::serialize(list)));
  }

  http::Task<> refuse(http::Connection& connection, const http::Request& head, const Error& error,
                      std::string_view param, std::chrono::seconds retry_after = std::chrono::seconds{1}) {
    http::Response response =
        is_openai(head.path)
            ? http::Response::json(http_status(error.code), openai_error(error, head.language, param))
            : http::error_response(http::kBare, head, error);
    if (error.code == Code::unavailable)
      response.headers.set("Retry-After", std::to_string(retry_after.count()));
    co_await answer(connection, head, std::move(response));
  }

  http::Task<> answer(http::Connection& connection, const http::Request& head, http::Response response) {
    const auto frame = http::frame_answer(response, head, connection.to_http10(), false);
    const auto& body = std::get<std::string>(response.body);
    const bool sent = co_await connection.write(frame.head, frame.body == http::AnswerFrame::Body::text
                                                                ? std::string_view(body)
                                                                : std::string_view());
    connection.finish(response.status, sent && !frame.close);
  }

  const Options options_;
  const Hooks hooks_;
  Router router_{hooks_};
};

}  // namespace

std::unique_ptr<Gateway> Gateway::create(Options options, Hooks hooks) {
  return std::make_unique<Proxy>(options, std::move(hooks));
}

}  // namespace lathe::gateway
