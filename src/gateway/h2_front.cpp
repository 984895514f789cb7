#include "gateway/h2_front.h"

#include "base/log.h"
#include "http/access_log.h"
#include "http/url.h"

namespace lathe::gateway {

namespace {

constexpr int kTries = 3;
constexpr std::string_view kServe = "/serve/";
constexpr std::string_view kServiceField = "lathe-service";

/// Whose call it is, and its path below the service: by the path, by the metadata, or by the authority.
struct Named {
  std::string service, path;
};
Named named_service(const http::Request& head) {
  const std::string_view path = head.raw_target;
  if (path.starts_with(kServe)) {
    const auto slash = std::min(path.find('/', kServe.size()), path.size());
    const auto name = http::percent_decode(path.substr(kServe.size(), slash - kServe.size()));
    return {name.value_or(""), slash == path.size() ? "/" : std::string(path.substr(slash))};
  }
  if (const auto field = head.headers.get(kServiceField); !field.empty())
    return {std::string(field), std::string(path)};
  const auto authority = head.headers.get("host");
  return {std::string(authority.substr(0, authority.find_first_of(".:"))), std::string(path)};
}

Error not_logged_in() {
  return {Code::unauthenticated,
          {"未登录：请提供 Authorization: Bearer 令牌", "not logged in: send Authorization: Bearer TOKEN"}};
}

}  // namespace

H2Front::H2Front(http::Connection& client, const Options& options, const Hooks& hooks, Router& router)
    : H2Session(client.loop(), true), client_(client), options_(options), hooks_(hooks), router_(router) {}

http::Task<> H2Front::serve() {
  ++running_;
  loop().spawn(write_all(), [this](const std::exception_ptr&) {
    client_.socket().cancel();
    finish_one();
  });
  co_await read_all({});
  // What is still under way has nobody to go to.
  for (const auto& [stream, call] : std::exchange(calls_, {})) part_with(*call);
  close();
  struct Join {
    H2Front& self;
    bool await_ready() const { return self.running_ == 0; }
    void await_suspend(std::coroutine_handle<> waiting) const { self.joining_ = waiting; }
    void await_resume() const {}
  };
  co_await Join{*this};
}

void H2Front::finish_one() {
  if (--running_ == 0 && joining_) loop().resume_later(std::exchange(joining_, nullptr));
}

http::Task<std::size_t> H2Front::receive(std::span<char> into) {
  if (client_.gone() && calls_.empty()) co_return 0;
  client_.wait_idle(calls_.empty());
  const auto got = co_await client_.read_raw(into);
  client_.wait_idle(false);
  co_return got;
}

http::Task<bool> H2Front::transmit(std::string_view bytes) {
  return client_.write(bytes);
}

void H2Front::on_begin(int stream) {
  if (calls_.contains(stream)) return;  // trailers
  auto call = std::make_shared<H2Call>();
  call->front = this;
  call->front_stream = stream;
  call->began = Moment::clock::now();
  calls_[stream] = std::move(call);
}

H2Call* H2Front::find(int stream) {
  const auto it = calls_.find(stream);
  return it == calls_.end() ? nullptr : it->second.get();
}

bool H2Front::on_field(int stream, std::string_view name, std::string_view value) {
  H2Call* call = find(stream);
  if (!call) return true;
  call->head_bytes += name.size() + value.size();
  if (call->head_bytes > client_.limits().max_header_bytes) return false;
  http::Request& head = call->head;
  if (name == ":method") {
    head.method_text = value;
    head.method = http::method_named(value);
  } else if (name == ":path") {
    head.raw_target = value;
  } else if (name == ":authority") {
    head.headers.set("host", std::string(value));
  } else if (!name.starts_with(':')) {
    head.headers.add(std::string(name), std::string(value));
  }
  return true;
}

void H2Front::on_headers(int stream, bool first, bool end) {
  const auto it = calls_.find(stream);
  if (it == calls_.end()) return;
  const auto call = it->second;
  if (end) on_data_end(stream);
  if (!first) return;
  http::Request& head = call->head;
  head.peer = client_.peer();
  head.id = http::request_id(head.headers.get("x-request-id"));
  head.language = http::preferred_language(head.headers.get("accept-language"));
  const auto target = http::parse_target(head.raw_target);
  if (!target.ok()) return call->fail(target.error());
  head.path = target->path;
  set_deadline(call);
  ++running_;
  loop().spawn(place(call), [this](const std::exception_ptr& bug) {
    if (bug) log::error("a call ended by a bug");
    finish_one();
  });
}

/// The caller's `grpc-timeout` counts from here: for waiting and connecting too.
void H2Front::set_deadline(const std::shared_ptr<H2Call>& call) {
  const auto timeout = grpc_timeout(call->head.headers.get("grpc-timeout"));
  if (!timeout) return;
  call->last = call->began + *timeout;
  call->timer = loop().call_at(call->last, [weak = std::weak_ptr(call)] {
    const auto call = weak.lock();
    if (!call) return;
    call->fail({Code::deadline_exceeded, {"已过调用的期限", "the call's deadline has passed"}});
    if (call->when_left) std::exchange(call->when_left, nullptr)();
    if (call->back) call->back->reset(call->back_stream, NGHTTP2_CANCEL);
  });
}

http::Task<> H2Front::place(std::shared_ptr<H2Call> call) {
  const auto placed = co_await try_place(call);
  if (!placed.ok()) call->fail(placed.error());
}

http::Task<Result<void>> H2Front::try_place(std::shared_ptr<H2Call> call) {
  const auto caller = hooks_.authenticate(call->head);
  if (!caller.ok()) co_return caller.error();
  if (caller->user_id.empty()) co_return not_logged_in();
  const Named named = named_service(call->head);
  Quest quest{.service = named.service,
              .caller = *caller,
              .loop = loop(),
              .when_left = [call](std::function<void()> then) {
                if (then && call->over()) return then();
                call->when_left = std::move(then);
              }};
  Error last{Code::unavailable, {"服务实例无法连接", "the replica cannot be reached"}};
  for (int attempt = 0; attempt < kTries; ++attempt) {
    auto place = co_await router_.find(quest);
    if (!place.ok()) co_return place.error();
    if (!place->grpc)
      co_return Error{Code::method_not_allowed,
                      {"此服务不接受 HTTP/2 调用", "this service is not called by HTTP/2 (gRPC)"}};
    quest.failed = place->lease.get();
    const auto upstream = loop().local<H2Pool>().get(*place->lease.get(), options_);
    const bool reached = upstream && co_await upstream->connected();
    if (call->over()) co_return Error{Code::cancelled, {"客户端已断开", "the client has left"}};
    std::string path = place->path;
    while (path.ends_with('/')) path.pop_back();
    path += named.path;
    if (client_.logs_access()) call->note = place->lease->log_words;
    call->lease = std::move(place->lease);
    call->collected.clear();
    call->head_bytes = 0;
    if (reached && upstream->take(call, path)) {
      const Usage no_tokens;
      if (hooks_.used) hooks_.used(call->head, *caller, call->lease->service_id, no_tokens);
      co_return Result<void>();
    }
    call->lease->shun(loop().now() + std::chrono::seconds{1});
    call->lease->failures.fetch_add(1, std::memory_order_relaxed);
    call->lease = Lease();
  }
  co_return last;
}

void H2Front::on_data(int stream, std::string_view bytes) {
  H2Call* call = find(stream);
  if (!call) return;
  if (call->answered && call->down.ended) {  // nobody reads it any more
    consumed(stream, bytes.size());
    return;
  }
  call->up.add(bytes);
  if (call->back) call->back->resume(call->back_stream);
}

void H2Front::on_data_end(int stream) {
  H2Call* call = find(stream);
  if (!call) return;
  call->up.ended = true;
  if (call->back) call->back->resume(call->back_stream);
}

void H2Front::part_with(H2Call& call) {
  call.front = nullptr;
  loop().cancel(call.timer);
  if (call.when_left) std::exchange(call.when_left, nullptr)();
  if (call.back) call.back->reset(call.back_stream, NGHTTP2_CANCEL);
  log(call);
}

void H2Front::on_closed(int stream, std::uint32_t) {
  const auto it = calls_.find(stream);
  if (it == calls_.end()) return;
  const auto call = std::move(it->second);
  calls_.erase(it);
  part_with(*call);
  if (!calls_.empty()) return;
  if (client_.gone())
    close();
  else
    client_.wait_idle(true);
}

H2Session::Source H2Front::on_source(int stream, std::span<char> into) {
  H2Call* call = find(stream);
  if (!call) return {.bytes = 0, .end = true};
  const std::size_t size = call->down.take(into);
  if (size > 0 && call->back) call->back->consumed(call->back_stream, size);
  const bool end = call->down.ended && call->down.empty();
  return {.bytes = size,
          .end = end,
          .trailers = end && !call->down.trailers.empty() ? &call->down.trailers : nullptr};
}

void H2Front::log(const H2Call& call) const {
  if (!client_.logs_access()) return;
  loop().local<http::AccessLog>().add({.method = call.head.method_text,
                                       .path = call.head.path,
                                       .status = call.status,
                                       .grpc_status = call.grpc_status,
                                       .taken = Moment::clock::now() - call.began,
                                       .peer = call.head.peer,
                                       .id = call.head.id,
                                       .words = call.note});
}

}  // namespace lathe::gateway
