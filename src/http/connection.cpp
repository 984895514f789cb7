#include "http/connection.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "http/access_log.h"
#include "http/url.h"

namespace lathe::http {

namespace {

using namespace std::chrono_literals;

// A refused client that is still sending would lose the answer to a reset if we closed at once.
constexpr std::uint64_t kLingerBytes = 16 * 1024 * 1024;
constexpr auto kLingerPause = 2s;
constexpr auto kLingerTime = 10s;

std::string address_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "-";
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &v4.sin_addr, text.data(), text.size());
    return text.data();
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  ::inet_ntop(AF_INET6, &v6.sin6_addr, text.data(), text.size());
  const std::string_view out = text.data();
  return std::string(IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) ? out.substr(out.rfind(':') + 1) : out);
}

/// How a client says that it speaks HTTP/2 without asking (RFC 9113 §3.4).
constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

Error head_refused(const Refusal& refusal) {
  const Code code = refusal.status == 408                            ? Code::deadline_exceeded
                    : refusal.status == 414 || refusal.status == 431 ? Code::too_large
                    : refusal.status == 400                          ? Code::invalid_argument
                                                                     : Code::unsatisfiable;
  return {code, {std::string("请求无法识别：") + refusal.zh, std::string("bad request: ") + refusal.en}};
}

}  // namespace

Connection::Connection(Site& site, Loop& loop, Fd fd)
    : site_(site),
      socket_(loop, std::move(fd), true),
      fd_(socket_.fd()),
      peer_(address_of(fd_)),
      parser_({site.options.limits.max_header_bytes, site.options.limits.max_headers}) {
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (site.tls) tls_ = std::make_unique<TlsStream>(socket_, *site.tls);
}

void Connection::arm(std::chrono::milliseconds timeout) {
  timed_out_ = false;
  socket_.renew();
  expiry_ = loop().now() + timeout;
}

void Connection::tick(Clock::time_point now) {
  // A client that says nothing for a while should cost little.
  if (idle_) parser_.give_back();
  if (now < expiry_) return;
  disarm();
  timed_out_ = true;
  socket_.cancel();
}

void Connection::close_idle() {
  if (idle_) socket_.cancel();
}

void Connection::cut() {
  broken_ = true;
  ::shutdown(fd_, SHUT_RDWR);
  socket_.cancel();
}

Task<> Connection::run() {
  if (tls_) {
    const bool greeted = co_await handshake();
    if (!greeted) co_return;
  }
  for (;;) {
    const bool has_head = co_await read_head();
    if (http2_) {
      disarm();
      co_await site_.options.io_handler->serve_http2(*this);
      break;
    }
    if (!has_head) break;
    const bool again = co_await serve_request();
    if (!again || broken_ || site_.draining) break;
  }
  co_await linger();
}

Task<bool> Connection::handshake() {
  arm(site_.options.limits.header_timeout);
  const bool greeted = co_await tls_->handshake();
  disarm();
  co_return greeted;
}

Task<std::size_t> Connection::receive(std::span<char> into) {
  std::size_t got = 0;
  if (tls_) {
    got = co_await tls_->read(into);
  } else {
    for (;;) {
      const bool worth = co_await socket_.readable();
      if (!worth) break;
      const auto read = socket_.try_read(into);
      if (read == Socket::kWouldBlock) continue;
      got = static_cast<std::size_t>(read);
      break;
    }
  }
  site_.stats.bytes_in.fetch_add(got, std::memory_order_relaxed);
  co_return got;
}

Task<std::size_t> Connection::transmit(std::string_view first, std::string_view second,
                                       std::string_view third) {
  std::size_t sent = 0;
  if (broken_) co_return 0;
  if (tls_) {
    std::string joined;
    std::string_view all = first;
    if (second.size() + third.size() > 0 && first.size() + second.size() + third.size() <= 16 * 1024) {
      joined.append(first).append(second).append(third);
      all = joined;
    }
    for (const auto next : {second, third})
      if (all.empty()) all = next;
    arm(site_.options.limits.write_timeout);
    sent = co_await tls_->write_some(all);
    disarm();
  } else {
    std::array<iovec, 3> pieces;
    std::size_t count = 0;
    for (const auto piece : {first, second, third})
      if (!piece.empty()) pieces[count++] = {const_cast<char*>(piece.data()), piece.size()};
    const std::span<const iovec> all(pieces.data(), count);
    auto wrote = socket_.try_write(all);
    if (wrote == Socket::kWouldBlock) {
      arm(site_.options.limits.write_timeout);
      while (wrote == Socket::kWouldBlock) {
        const bool worth = co_await socket_.writable();
        wrote = worth ? socket_.try_write(all) : 0;
      }
      disarm();
    }
    sent = static_cast<std::size_t>(wrote);
  }
  site_.stats.bytes_out.fetch_add(sent, std::memory_order_relaxed);
  co_return sent;
}

Task<bool> Connection::read_head() {
  parser_.reset();
  if (tls_ || buffer_.size() > 0)
    buffer_.shrink();
  else
    buffer_.release();
  const auto& limits = site_.options.limits;
  bool waiting = buffer_.size() == 0;
  arm(waiting && !first_ ? limits.idle_timeout : limits.header_timeout);
  idle_ = waiting;
  started_at_ = loop().now();
  const bool may_be_http2 = first_ && site_.options.io_handler && site_.options.io_handler->speaks_http2();
  first_ = false;
  for (;;) {
    if (may_be_http2 && buffer_.view().starts_with(kHttp2Preface)) {
      http2_ = true;
      co_return false;
    }
    const bool undecided = may_be_http2 && kHttp2Preface.starts_with(buffer_.view());
    if (buffer_.size() > 0 && !undecided) {
      const auto state = parser_.parse(buffer_.view());
      if (state == HeadParser::State::done) break;
      if (state == HeadParser::State::refused) co_return co_await refuse_head(parser_.refusal());
    }
    if (broken_ || (idle_ && site_.draining)) co_return false;
    // Said here once more and not by receive(): most requests wait here, and a frame less is worth it. Memory
    // is taken only once there is something to read.
    std::size_t got = 0;
    if (tls_) {
      got = co_await receive(buffer_.prepare(limits.max_header_bytes));
    } else {
      const bool worth = co_await socket_.readable();
      const auto read = worth ? socket_.try_read(buffer_.prepare(limits.max_header_bytes)) : 0;
      if (read == Socket::kWouldBlock) continue;
      got = static_cast<std::size_t>(read);
      site_.stats.bytes_in.fetch_add(got, std::memory_order_relaxed);
    }
    idle_ = false;
    if (got == 0) {
      const Refusal late{408, "请求头未在限期内到达", "the head did not arrive in time"};
      if (timed_out_ && !waiting) {
        parser_.parse(buffer_.view());  // what it has seen so far may have moved
        co_return co_await refuse_head(late);
      }
      co_return false;
    }
    buffer_.commit(got);
    if (waiting) {
      waiting = false;
      started_at_ = loop().now();
      arm(limits.header_timeout);
    }
  }
  disarm();
  co_return true;
}

std::optional<Text> Connection::make_request() {
  request_.method_text = parser_.method();
  request_.method = method_named(parser_.method());
  request_.raw_target = parser_.target();
  request_.headers.reserve(parser_.field_count());
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
  forget_answer();
  unread_ = false;

  auto target = parse_target(parser_.origin_target());
  if (!target) request_.raw_target = parser_.origin_target();
  buffer_.consume(parser_.bytes());
  if (!tls_) buffer_.release();  // it may be long until the next one
  if (!target) return target.error().message;
  request_.path = std::move(target->path);
  request_.query = std::move(target->query);
  return std::nullopt;
}

/// What an earlier answer on this connection left.
void Connection::forget_answer() {
  answer_ready_ = streamed_ = sent_all_ = false;
  answer_bytes_ = sent_ = 0;
}

Task<bool> Connection::refuse_head(Refusal refusal) {
  request_ = Request{};
  request_.peer = peer_;
  request_.id = request_id({});
  std::string_view languages;
  for (std::size_t i = 0; i < parser_.field_count(); ++i)
    if (const auto field = parser_.field(i); same_ignoring_case(field.name, "accept-language"))
      languages = field.value;
  request_.language = preferred_language(languages);
  request_.raw_target = parser_.origin_target();
  http10_ = false;
  unread_ = true;
  forget_answer();
  response_ = malformed(head_refused(refusal), refusal.status);
  co_await answer_here(true);
  co_return false;
}

Task<bool> Connection::serve_request() {
  site_.stats.requests.fetch_add(1, std::memory_order_relaxed);
  if (auto wrong = make_request()) {
    response_ = malformed({Code::invalid_argument, std::move(*wrong)}, 400);
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
  try {
    co_await site_.options.io_handler->serve(*this, request_);
  } catch (const std::exception& bug) {
    log::error("request {}: {}", request_.id, bug.what());
    frame_.close = broken_ = true;
  }
  unread_ = !body_.done();
  log_request(response_.status);
  request_ = {};
  co_return !frame_.close && !unread_ && may_go_on();
}

Task<bool> Connection::write(std::string_view first, std::string_view second, std::string_view third) {
  const auto total = first.size() + second.size() + third.size();
  for (std::size_t sent = 0; !broken_ && sent < total;) {
    const std::size_t took = co_await transmit(first, second, third);
    if (took == 0) broken_ = true;
    sent += took;
    answer_bytes_ += took;
    cut_front(took, {&first, &second, &third});
  }
  co_return !broken_;
}

bool Connection::write_now(std::string_view& first, std::string_view& second, std::string_view& third) {
  const std::size_t size = first.size() + second.size() + third.size();
  if (size == 0) return true;
  if (broken_ || tls_ || size > kSmall) return false;
  // One plain send of a copy costs the kernel less than a gathered one.
  std::array<char, kSmall> all;
  char* end = all.data();
  for (const auto piece : {first, second, third}) end = std::copy_n(piece.data(), piece.size(), end);
  const auto sent =
      static_cast<std::size_t>(std::max<std::ptrdiff_t>(socket_.try_write({all.data(), size}), 0));
  answer_bytes_ += sent;
  site_.stats.bytes_out.fetch_add(sent, std::memory_order_relaxed);
  cut_front(sent, {&first, &second, &third});
  return sent == size;
}

void Connection::wait_idle(bool idle) {
  idle_ = idle;
  if (idle)
    arm(site_.options.limits.idle_timeout);
  else
    disarm();
}

Task<> IoHandler::serve_http2(Connection&) {
  co_return;
}

void Connection::abort() {
  broken_ = true;
  const struct ::linger at_once { .l_onoff = 1, .l_linger = 0 };
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void Connection::finish(int status, bool reusable) {
  response_.status = status;
  frame_.close = !reusable;
}

Task<> Connection::linger() {
  if (broken_) co_return;
  if (tls_) tls_->say_goodbye();  // the client's close_notify is worth no waiting
  if (::shutdown(fd_, SHUT_WR) != 0 || !(unread_ || buffer_.size() > 0)) co_return;
  const auto dropped = std::make_unique_for_overwrite<char[]>(64 * 1024);
  const auto end = Clock::now() + kLingerTime;
  std::uint64_t total = 0;
  while (total < kLingerBytes && Clock::now() < end && !broken_ && !site_.draining) {
    arm(kLingerPause);
    const bool worth = co_await socket_.readable();
    disarm();
    const auto got = worth ? socket_.try_read({dropped.get(), 64 * 1024}) : 0;
    if (got == 0) break;
    total += got > 0 ? static_cast<std::uint64_t>(got) : 0;
  }
}

void Connection::log_request(int status) {
  if (!site_.options.access_log) return;
  loop().local<AccessLog>().add({.method = request_.method_text,
                                 .path = request_.path,
                                 .status = status,
                                 .bytes = answer_bytes_,
                                 .taken = Clock::now() - started_at_,
                                 .peer = peer_,
                                 .id = request_.id,
                                 .words = note_,
                                 .cut = broken_});
  note_.clear();
}

}  // namespace lathe::http
