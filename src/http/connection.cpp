#include "http/connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>

#include "base/log.h"
#include "http/url.h"

namespace lathe::http {

namespace asio = boost::asio;

namespace {

using namespace std::chrono_literals;

// A refused client that is still sending would lose the answer to a reset if we closed at once.
constexpr std::uint64_t kLingerBytes = 16 * 1024 * 1024;
constexpr auto kLingerPause = 2s;
constexpr auto kLingerTime = 10s;

std::string address_of(const Socket& socket) {
  boost::system::error_code error;
  const auto address = socket.remote_endpoint(error).address();
  if (error) return "-";
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  return address.to_string();
}

asio::ip::tcp protocol_of(const Socket& socket) {
  boost::system::error_code error;
  return socket.local_endpoint(error).protocol();
}

Text head_refused(const Refusal& refusal) {
  return {std::string("请求无法识别：") + refusal.reason, std::string("bad request: ") + refusal.reason};
}

}  // namespace

Connection::Connection(Site& site, Socket socket)
    : site_(site),
      socket_(std::move(socket), {site.options.limits.body_timeout, site.options.limits.write_timeout}),
      fd_(socket_.lowest_layer().native_handle()),
      protocol_(protocol_of(socket_.lowest_layer())),
      peer_(address_of(socket_.lowest_layer())),
      parser_({site.options.limits.max_header_bytes, site.options.limits.max_headers}) {
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (site.tls) tls_ = std::make_unique<TlsStream>(socket_, *site.tls);
}

Connection::~Connection() {
  // Released for a worker when the server was torn down.
  if (!socket_.lowest_layer().is_open()) ::close(fd_);
}

void Connection::arm(std::chrono::milliseconds timeout) {
  timed_out_ = false;
  expiry_ = Clock::now() + timeout;
}

void Connection::tick(Clock::time_point now) {
  if (now < expiry_) return;
  disarm();
  timed_out_ = true;
  boost::system::error_code ignored;
  socket_.lowest_layer().cancel(ignored);
}

void Connection::close_idle() {
  boost::system::error_code ignored;
  if (idle_) socket_.lowest_layer().cancel(ignored);
}

void Connection::cut() {
  broken_ = true;
  ::shutdown(fd_, SHUT_RDWR);
  boost::system::error_code ignored;
  socket_.lowest_layer().cancel(ignored);
}

Task<> Connection::run() {
  if (tls_) {
    const bool greeted = co_await handshake();
    if (!greeted) co_return;
  }
  for (;;) {
    const bool has_head = co_await read_head();
    if (!has_head) break;
    const bool again = co_await serve_request();
    if (!again || broken_ || site_.draining) break;
  }
  co_await linger();
}

Task<bool> Connection::handshake() {
  arm(site_.options.limits.header_timeout);
  const auto [error] = co_await tls_->async_handshake(asio::ssl::stream_base::server, kAwait);
  disarm();
  co_return !error;
}

Task<std::size_t> Connection::receive(std::span<char> into) {
  const asio::mutable_buffer buffer(into.data(), into.size());
  boost::system::error_code error;
  std::size_t got = 0;
  if (tls_)
    std::tie(error, got) = co_await tls_->async_read_some(buffer, kAwait);
  else
    std::tie(error, got) = co_await socket_.async_read_some(buffer, kAwait);
  site_.stats.bytes_in.fetch_add(got, std::memory_order_relaxed);
  co_return got;
}

Task<std::size_t> Connection::transmit(std::string_view first, std::string_view second) {
  const std::array<asio::const_buffer, 2> buffers{asio::const_buffer(first.data(), first.size()),
                                                  asio::const_buffer(second.data(), second.size())};
  boost::system::error_code error;
  std::size_t sent = 0;
  arm(site_.options.limits.write_timeout);
  if (tls_)
    std::tie(error, sent) = co_await tls_->async_write_some(buffers, kAwait);
  else
    std::tie(error, sent) = co_await socket_.async_write_some(buffers, kAwait);
  disarm();
  site_.stats.bytes_out.fetch_add(sent, std::memory_order_relaxed);
  co_return sent;
}

Task<bool> Connection::read_head() {
  parser_.reset();
  buffer_.shrink();
  const auto& limits = site_.options.limits;
  bool waiting = buffer_.size() == 0;
  arm(waiting && !first_ ? limits.idle_timeout : limits.header_timeout);
  idle_ = waiting;
  started_at_ = Clock::now();
  first_ = false;
  for (;;) {
    if (buffer_.size() > 0) {
      const auto state = parser_.parse(buffer_.view());
      if (state == HeadParser::State::done) break;
      if (state == HeadParser::State::refused) co_return co_await refuse_head(parser_.refusal());
    }
    if (broken_ || (idle_ && site_.draining)) co_return false;
    const std::size_t got = co_await receive(buffer_.prepare(limits.max_header_bytes));
    idle_ = false;
    if (got == 0) {
      const Refusal late{408, "the head did not arrive in time"};
      if (timed_out_ && !waiting) co_return co_await refuse_head(late);
      co_return false;
    }
    buffer_.commit(got);
    if (waiting) {
      waiting = false;
      started_at_ = Clock::now();
      arm(limits.header_timeout);
    }
  }
  disarm();
  co_return true;
}

std::optional<Text> Connection::make_request() {
  request_ = Request{};
  request_.method_text = parser_.method();
  request_.method = method_named(parser_.method());
  request_.raw_target = parser_.target();
  for (std::size_t i = 0; i < parser_.field_count(); ++i) {
    const auto field = parser_.field(i);
    request_.headers.add(std::string(field.name), std::string(field.value));
  }
  request_.peer = peer_;
  request_.id = request_id(request_.headers.get("X-Request-Id"));
  request_.language = preferred_language(request_.headers.get("Accept-Language"));

  framing_ = parser_.framing();
  http10_ = parser_.minor_version() == 0;
  keep_alive_ = parser_.keep_alive();
  expects_ = parser_.expects_continue() && framing_.kind != Framing::Kind::none;
  body_ = BodyState(framing_, UINT64_MAX);
  answer_ready_ = streamed_ = sent_all_ = unread_ = false;
  answer_bytes_ = sent_ = 0;

  auto target = parse_target(parser_.origin_target());
  buffer_.consume(parser_.bytes());
  if (!target) return target.error().message;
  request_.path = std::move(target->path);
  request_.query = std::move(target->query);
  return std::nullopt;
}

Task<bool> Connection::refuse_head(Refusal refusal) {
  request_ = Request{};
  request_.peer = peer_;
  request_.path = "-";
  request_.id = request_id({});
  http10_ = false;
  unread_ = true;
  response_ = plain_answer(refusal.status, head_refused(refusal), Language::en);
  co_await answer_here(true);
  co_return false;
}

Task<bool> Connection::serve_request() {
  site_.stats.requests.fetch_add(1, std::memory_order_relaxed);
  if (auto wrong = make_request()) {
    request_.path = "-";
    response_ = plain_answer(400, *wrong, request_.language);
    unread_ = true;
    co_return co_await answer_here(true);
  }
  if (site_.options.io_handler && site_.options.io_handler->wants(request_)) co_return co_await serve_io();

  Handler::Intake intake;
  try {
    intake = site_.handler.intake(request_);
  } catch (const std::exception& bug) {
    log::error("request {}: intake: {}", request_.id, bug.what());
    intake.refuse = failed({Code::internal, {"服务器内部错误", "internal error"}});
  }
  body_ = BodyState(framing_, intake.max_body);
  if (!intake.refuse && framing_.kind == Framing::Kind::length && framing_.length > intake.max_body) {
    const auto limit = std::to_string(intake.max_body);
    intake.refuse = failed({Code::too_large,
                            {"请求体超过 " + limit + " 字节的上限",
                             "the body is larger than the limit of " + limit + " bytes"}});
  }
  if (intake.refuse) {
    response_ = std::move(*intake.refuse);
    const bool drained = co_await discard_small_body();
    unread_ = !drained;
    if (std::holds_alternative<std::string>(response_.body)) co_return co_await answer_here(unread_);
    answer_ready_ = true;
    co_return co_await serve_on_worker(false);
  }
  if (!intake.stream) {
    const bool whole = co_await read_whole_body();
    if (!whole) co_return false;
  }
  co_return co_await serve_on_worker(intake.stream);
}

Task<bool> Connection::answer_here(bool close) {
  site_.stats.refused.fetch_add(response_.status >= 400 ? 1 : 0, std::memory_order_relaxed);
  frame_ = frame_answer(response_, request_, http10_, close || !may_go_on());
  sent_ = 0;
  co_return co_await finish_answer();
}

bool Connection::may_go_on() const {
  return keep_alive_ && !site_.draining.load(std::memory_order_relaxed);
}

Task<bool> Connection::finish_answer() {
  const auto* text = std::get_if<std::string>(&response_.body);
  const std::string_view content =
      text && frame_.body == AnswerFrame::Body::text ? std::string_view(*text) : std::string_view();
  const std::string_view head = frame_.head;
  while (!sent_all_ && sent_ < head.size() + content.size()) {
    const std::size_t of_head = std::min(sent_, head.size());
    const std::size_t took = co_await transmit(head.substr(of_head), content.substr(sent_ - of_head));
    if (took == 0) {
      broken_ = true;
      break;
    }
    sent_ += took;
  }
  if (!sent_all_) answer_bytes_ = sent_ - std::min(sent_, head.size());
  log_request(response_.status);
  const bool again = !broken_ && !frame_.close;
  response_ = {};
  frame_ = {};
  request_ = {};
  co_return again;
}

Task<bool> Connection::serve_io() {
  expects_ = expects_ && !body_.done();
  frame_.close = true;
  response_.status = 0;
  Request head = std::move(request_);
  request_.method = head.method;
  request_.method_text = head.method_text;
  request_.path = head.path;
  request_.id = head.id;
  try {
    co_await site_.options.io_handler->serve(*this, std::move(head));
  } catch (const std::exception& bug) {
    log::error("request {}: {}", request_.id, bug.what());
    frame_.close = broken_ = true;
  }
  unread_ = !body_.done();
  log_request(response_.status);
  request_ = {};
  co_return !frame_.close && !unread_ && may_go_on();
}

Task<bool> Connection::write(std::string_view first, std::string_view second) {
  std::size_t sent = 0;
  while (!broken_ && sent < first.size() + second.size()) {
    const std::size_t of_first = std::min(sent, first.size());
    const std::size_t took = co_await transmit(first.substr(of_first), second.substr(sent - of_first));
    if (took == 0) broken_ = true;
    sent += took;
  }
  answer_bytes_ += sent;
  co_return !broken_;
}

void Connection::when_readable(std::function<void()> then) {
  socket_.lowest_layer().async_wait(Socket::wait_read, [self = shared_from_this(), then = std::move(then)](
                                                           const boost::system::error_code& error) {
    if (!error) then();
  });
}

void Connection::stop_watching() {
  boost::system::error_code ignored;
  socket_.lowest_layer().cancel(ignored);
}

void Connection::finish(int status, bool reusable) {
  response_.status = status;
  frame_.close = !reusable;
}

Task<> Connection::linger() {
  if (broken_) co_return;
  if (tls_) {
    // Ours is sent; the client's close_notify is worth no waiting.
    SSL_set_shutdown(tls_->native_handle(), SSL_RECEIVED_SHUTDOWN);
    arm(kLingerPause);
    co_await tls_->async_shutdown(kAwait);
    disarm();
  }
  boost::system::error_code error;
  socket_.lowest_layer().shutdown(asio::socket_base::shutdown_send, error);
  if (error || !(unread_ || buffer_.size() > 0)) co_return;
  const auto dropped = std::make_unique_for_overwrite<char[]>(64 * 1024);
  const auto end = Clock::now() + kLingerTime;
  std::uint64_t total = 0;
  while (total < kLingerBytes && Clock::now() < end && !broken_ && !site_.draining) {
    arm(kLingerPause);
    const asio::mutable_buffer into(dropped.get(), 64 * 1024);
    const auto [failed, got] = co_await socket_.async_read_some(into, kAwait);
    disarm();
    if (failed || got == 0) break;
    total += got;
  }
}

void Connection::log_request(int status) {
  if (!site_.options.access_log) return;
  const auto taken =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started_at_).count();
  log::info("{} {} {} {} {:.1f}ms {} {}{}", request_.method_text.empty() ? "-" : request_.method_text,
            request_.path, status, answer_bytes_, static_cast<double>(taken) / 1000.0, peer_, request_.id,
            broken_ ? " (cut)" : "");
}

}  // namespace lathe::http
