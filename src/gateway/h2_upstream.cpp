#include "gateway/h2_upstream.h"

#include <algorithm>

namespace lathe::gateway {

namespace {

constexpr std::chrono::milliseconds kSweep{250};
constexpr std::chrono::seconds kKeepIdle{60};

Error unreachable() {
  return {Code::unavailable, {"服务实例断开了连接", "the replica closed the connection"}};
}

Error too_late() {
  return {Code::deadline_exceeded, {"服务实例没有及时应答", "the replica did not answer in time"}};
}

/// Fields that are not passed on: the gateway says them itself, or they hold the platform's own token.
bool is_withheld(std::string_view name) {
  for (const std::string_view field : {"authorization", "host", "x-forwarded-for", "x-forwarded-host",
                                       "x-forwarded-proto", "x-real-ip", "forwarded", "x-request-id"})
    if (name == field) return true;
  return false;
}

}  // namespace

H2Upstream::H2Upstream(http::Loop& loop, Fd fd, std::string authority, const Options& options)
    : H2Session(loop, false),
      socket_(loop, std::move(fd), false),
      authority_(std::move(authority)),
      options_(options),
      idle_since_(loop.now()) {}

void H2Upstream::start() {
  loop().spawn(serve(), [self = shared_from_this()](const std::exception_ptr&) {});
}

http::Task<> H2Upstream::serve() {
  const auto timer = loop().call_at(loop().now() + options_.connect_timeout, [this] { socket_.cancel(); });
  connected_ = co_await socket_.connected();
  loop().cancel(timer);
  dead_ = !connected_;
  for (const auto waiting : std::exchange(awaiting_, {})) loop().resume_later(waiting);
  if (dead_) co_return;
  sweep();
  writing_ = true;
  loop().spawn(write_all(), [this](const std::exception_ptr&) {
    writing_ = false;
    socket_.cancel();
    if (joining_) loop().resume_later(std::exchange(joining_, nullptr));
  });
  co_await read_all({});
  dead_ = true;
  for (const auto& [stream, call] : std::exchange(calls_, {})) {
    call->back = nullptr;
    end(*call, unreachable());
  }
  close();
  struct Join {
    H2Upstream& self;
    bool await_ready() const { return !self.writing_; }
    void await_suspend(std::coroutine_handle<> waiting) const { self.joining_ = waiting; }
    void await_resume() const {}
  };
  co_await Join{*this};
  socket_.close();
}

http::Task<bool> H2Upstream::connected() {
  struct Await {
    H2Upstream& self;
    bool await_ready() const { return self.connected_ || self.dead_; }
    void await_suspend(std::coroutine_handle<> waiting) const { self.awaiting_.push_back(waiting); }
    void await_resume() const {}
  };
  co_await Await{*this};
  co_return connected_ && !dead();
}

/// Calls that wait too long are given up; so is the connection when nobody has needed it for a while.
void H2Upstream::sweep() {
  loop().call_at(loop().now() + kSweep, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->dead()) return;
    const auto now = self->loop().now();
    for (auto it = self->calls_.begin(); it != self->calls_.end();) {
      const auto call = (it++)->second;
      if (call->deadline > now) continue;
      self->end(*call, too_late());
      self->reset(call->back_stream, NGHTTP2_CANCEL);
    }
    if (!self->calls_.empty()) self->idle_since_ = now;
    if (self->idle_since_ + kKeepIdle < now) self->close();
    if (!self->dead()) self->sweep();
  });
}

bool H2Upstream::has_room() const {
  const auto most = nghttp2_session_get_remote_settings(raw(), NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return !dead() && !leaving_ && calls_.size() < std::min<std::uint32_t>(most, 100) &&
         nghttp2_session_check_request_allowed(raw()) != 0;
}

bool H2Upstream::take(const std::shared_ptr<H2Call>& call, const std::string& path) {
  H2Fields fields{
      {":method", call->head.method_text}, {":scheme", "http"}, {":path", path}, {":authority", authority_}};
  for (const auto& [name, value] : call->head.headers.list())
    if (!is_withheld(name) && (name != "grpc-timeout" || call->last == Moment::max()))
      fields.emplace_back(name, value);
  if (call->last != Moment::max())
    fields.emplace_back("grpc-timeout", grpc_timeout_text(call->last - Moment::clock::now()));
  fields.emplace_back("x-forwarded-for", call->head.peer);
  fields.emplace_back("x-request-id", call->head.id);
  const bool with_body = !(call->up.ended && call->up.empty());
  const int stream = submit_request(fields, with_body);
  if (stream < 0) return false;
  call->back = this;
  call->back_stream = stream;
  expect_more(*call);
  calls_[stream] = call;
  return true;
}

/// Whose request is whole waits for the first byte of its answer; a conversation goes on as long as either
/// side says something.
void H2Upstream::expect_more(H2Call& call) const {
  const bool waits = !call.answered && call.up.ended && call.up.empty();
  call.deadline = loop().now() + (waits ? options_.first_byte_timeout : options_.idle_timeout);
  if (waits && options_.total_timeout.count() > 0)
    call.deadline = std::min(call.deadline, call.lease.since() + options_.total_timeout);
}

void H2Upstream::cancel(H2Call& call) {
  reset(call.back_stream, NGHTTP2_CANCEL);
}

void H2Upstream::end(H2Call& call, const Error& error) {
  if (call.lease) call.lease->failures.fetch_add(1, std::memory_order_relaxed);
  call.fail(error);
}

H2Call* H2Upstream::find(int stream) {
  const auto it = calls_.find(stream);
  return it == calls_.end() ? nullptr : it->second.get();
}

http::Task<std::size_t> H2Upstream::receive(std::span<char> into) {
  for (;;) {
    const bool worth = co_await socket_.readable();
    if (!worth) co_return 0;
    const auto got = socket_.try_read(into);
    if (got != http::Socket::kWouldBlock) co_return static_cast<std::size_t>(got);
  }
}

http::Task<bool> H2Upstream::transmit(std::string_view bytes) {
  return socket_.write(bytes);
}

void H2Upstream::on_begin(int stream) {
  if (H2Call* call = find(stream)) call->collected.clear();
}

bool H2Upstream::on_field(int stream, std::string_view name, std::string_view value) {
  H2Call* call = find(stream);
  if (!call) return true;
  call->head_bytes += name.size() + value.size();
  if (call->head_bytes > 64 * 1024) return false;
  call->collected.emplace_back(name, value);
  return true;
}

void H2Upstream::on_headers(int stream, bool, bool end) {
  H2Call* call = find(stream);
  if (!call) return;
  if (call->answered) {
    call->down.trailers = std::move(call->collected);
    for (const auto& [name, value] : call->down.trailers)
      if (name == "grpc-status") call->grpc_status = std::atoi(value.c_str());
    call->down.ended = true;
    if (call->front) call->front->resume(call->front_stream);
    return;
  }
  pass_answer(*call, end);
}

void H2Upstream::pass_answer(H2Call& call, bool end) {
  int status = 0;
  for (const auto& [name, value] : call.collected) {
    if (name == ":status") status = std::atoi(value.c_str());
    if (name == "grpc-status") call.grpc_status = std::atoi(value.c_str());
  }
  if (status < 200) return;  // between the gateway and the upstream
  call.lease.begins_answer();
  if (status >= 500) call.lease->failures.fetch_add(1, std::memory_order_relaxed);
  call.answered = true;
  expect_more(call);
  call.status = status;
  call.down.ended = end;
  std::erase_if(call.collected, [](const auto& field) { return field.first == "x-request-id"; });
  call.collected.emplace_back("x-request-id", call.head.id);
  if (call.front) call.front->submit_answer(call.front_stream, call.collected, !end);
}

void H2Upstream::on_data(int stream, std::string_view bytes) {
  H2Call* call = find(stream);
  if (!call) return;
  expect_more(*call);
  call->lease->bytes_out.fetch_add(bytes.size(), std::memory_order_relaxed);
  call->down.add(bytes);
  if (call->front) call->front->resume(call->front_stream);
}

void H2Upstream::on_data_end(int stream) {
  H2Call* call = find(stream);
  if (!call) return;
  call->down.ended = true;
  if (call->front) call->front->resume(call->front_stream);
}

void H2Upstream::on_closed(int stream, std::uint32_t) {
  const auto it = calls_.find(stream);
  if (it == calls_.end()) return;
  const auto call = std::move(it->second);
  calls_.erase(it);
  call->back = nullptr;
  // grpc-status: UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS are the server's own.
  for (const int failure : {2, 13, 14, 15})
    if (call->grpc_status == failure) call->lease->failures.fetch_add(1, std::memory_order_relaxed);
  if (!call->over()) end(*call, unreachable());
  call->lease = Lease();
}

H2Session::Source H2Upstream::on_source(int stream, std::span<char> into) {
  H2Call* call = find(stream);
  if (!call) return {.bytes = 0, .end = true};
  const std::size_t size = call->up.take(into);
  if (size > 0 && call->front) call->front->consumed(call->front_stream, size);
  call->lease->bytes_in.fetch_add(size, std::memory_order_relaxed);
  const bool end = call->up.ended && call->up.empty();
  if (size > 0 || end) expect_more(*call);
  return {.bytes = size, .end = end};
}

std::shared_ptr<H2Upstream> H2Pool::get(const Target& target, const Options& options) {
  auto& list = open_[target.serial];
  std::erase_if(list, [](const auto& weak) {
    const auto one = weak.lock();
    return !one || one->dead();
  });
  for (const auto& weak : list)
    if (auto one = weak.lock(); one->has_room()) return one;
  if (target.address_size == 0) return nullptr;
  Fd fd = http::Socket::begin_connect(target.address, target.address_size);
  if (!fd) return nullptr;
  auto made = std::make_shared<H2Upstream>(loop_, std::move(fd), target.authority, options);
  made->start();
  list.push_back(made);
  return made;
}

}  // namespace lathe::gateway
