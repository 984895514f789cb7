#include "gateway/gateway.h"

#include <fmt/format.h>

#include <atomic>
#include <boost/json.hpp>
#include <variant>

#include "gateway/exchange.h"
#include "gateway/openai.h"
#include "gateway/routes.h"
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

Error no_such_service(std::string_view name) {
  return not_found({"服务", "service"}, name);
}

class Proxy final : public Gateway, public http::IoHandler {
 public:
  Proxy(Options options, Hooks hooks) : options_(options), hooks_(std::move(hooks)) {
    table_.store(std::make_shared<const Table>(std::vector<ServiceRoute>{}, nullptr));
  }

  void set_routes(std::vector<ServiceRoute> services) override {
    const std::scoped_lock lock(set_mutex_);
    const auto before = table_.load();
    table_.store(std::make_shared<const Table>(std::move(services), before.get()));
  }

  std::vector<UpstreamCounters> counters() const override {
    std::vector<UpstreamCounters> out;
    for (const auto& [id, target] : table_.load()->targets())
      out.push_back({target->service_id, target->version_id, id, target->requests, target->failures,
                     target->in_flight, target->bytes_in, target->bytes_out,
                     static_cast<double>(target->first_byte_us) / 1e6});
    return out;
  }

  http::IoHandler& io_handler() override { return *this; }

  bool wants(const http::Request& head) override {
    return head.path.starts_with(kServe) || is_openai(head.path);
  }

  http::Task<> serve(http::Connection& connection, http::Request head) override {
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
      co_await serve_path(connection, head, *caller);
    }
  }

 private:
  http::Task<> serve_path(http::Connection& connection, const http::Request& head,
                          const http::Identity& caller) {
    const std::string_view below = std::string_view(head.path).substr(kServe.size());
    const std::string name(below.substr(0, below.find('/')));
    Forward forward;
    forward.target = after_service(head.raw_target);
    co_await forward_to(connection, head, caller, name, forward, {});
  }

  http::Task<> serve_openai(http::Connection& connection, const http::Request& head,
                            const http::Identity& caller) {
    if (head.method != http::Method::post) {
      co_await refuse(connection, head,
                      {Code::invalid_argument, {"此地址只接受 POST", "this address takes POST only"}}, {});
      co_return;
    }
    Forward forward;
    forward.body_read = true;
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
    const auto table = table_.load();
    Service* service = table->find(name);
    if (!service || !hooks_.may_call(caller, service->route())) {
      co_await refuse(connection, head, no_such_service(name), param);
      co_return;
    }
    const std::string rest = std::move(forward.target);
    Error last{Code::unavailable, service->route().unavailable};
    for (int attempt = 0; attempt < kTries; ++attempt) {
      auto choice = service->choose();
      if (!choice) break;
      forward.target = join(choice->version->path, rest);
      Exchange exchange(connection, head, options_, std::move(choice->lease));
      const auto outcome = co_await exchange.run(forward);
      if (outcome == Exchange::Outcome::answered || outcome == Exchange::Outcome::left) co_return;
      last = exchange.error();
      if (outcome == Exchange::Outcome::failed) break;
    }
    co_await refuse(connection, head, last, param);
  }

  http::Task<> list_models(http::Connection& connection, const http::Request& head,
                           const http::Identity& caller) {
    boost::json::array data;
    const auto table = table_.load();
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
                      std::string_view param) {
    http::Response response =
        is_openai(head.path)
            ? http::Response::json(http_status(error.code), openai_error(error, head.language, param))
            : http::error_response(http::kBare, head, error);
    if (error.code == Code::unavailable) response.headers.set("Retry-After", "1");
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
  std::mutex set_mutex_;
  std::atomic<std::shared_ptr<const Table>> table_;
};

}  // namespace

std::unique_ptr<Gateway> Gateway::create(Options options, Hooks hooks) {
  return std::make_unique<Proxy>(options, std::move(hooks));
}

}  // namespace lathe::gateway
