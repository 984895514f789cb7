// The request's body as a connection's I/O thread reads it: whole, in pieces for an IoHandler, or to drop it.
#include <algorithm>
#include <array>
#include <utility>

#include "http/connection.h"

namespace lathe::http {

namespace {

/// A body this small is read and dropped rather than the connection given up.
constexpr std::uint64_t kSmallBody = 64 * 1024;

}  // namespace

Task<bool> Connection::discard_small_body() {
  if (framing_.kind == Framing::Kind::none) co_return true;
  if (framing_.kind != Framing::Kind::length || framing_.length > kSmallBody || expects_) co_return false;
  body_ = BodyState(framing_, kSmallBody);
  std::array<char, 4096> dropped;
  while (!body_.done()) {
    const auto got = co_await read_body(dropped);
    if (!got) co_return false;
  }
  co_return true;
}

Task<Result<std::size_t>> Connection::read_body(std::span<char> into) {
  while (!body_.done() && !into.empty()) {
    if (std::exchange(expects_, false)) {
      const bool told = co_await write(kContinue);
      if (!told) co_return Error{Code::cancelled, {"客户端已断开", "the client has left"}};
    }
    const auto room = into.first(body_.wanted(into.size()));
    std::size_t got = buffer_.take(room);
    if (got == 0) {
      arm(site_.options.limits.body_timeout);
      got = co_await receive(room);
      disarm();
      if (got == 0 && timed_out_)
        co_return Error{Code::deadline_exceeded, {"请求体未在限期内到达", "the body did not arrive in time"}};
      if (got == 0) co_return body_.ended().error();
    }
    auto step = body_.decode(room.first(got));
    if (!step) co_return std::move(step).error();
    if (step->consumed < got) buffer_.put_back({room.data() + step->consumed, got - step->consumed});
    if (step->produced > 0) co_return step->produced;
  }
  co_return std::size_t{0};
}

Task<std::size_t> Connection::read_raw(std::span<char> into) {
  const std::size_t kept = buffer_.take(into);
  if (kept > 0) co_return kept;
  if (!idle_) socket_.renew();  // else the wait is armed already
  co_return co_await receive(into);
}

Task<bool> Connection::read_whole_body() {
  std::string& body = request_.body;
  std::size_t filled = 0;
  while (!body_.done()) {
    if (filled == body.size()) {
      // Grown by what has really arrived: a large Content-Length alone must not cost memory.
      const std::size_t aim = body_.wanted(std::max<std::size_t>(16 * 1024, filled));
      body.resize(filled + aim);
    }
    const auto got = co_await read_body({body.data() + filled, body.size() - filled});
    if (got) {
      filled += *got;
      continue;
    }
    unread_ = true;
    const Error& error = got.error();
    if (error.code == Code::cancelled) co_return false;
    response_ = failed(error, error.code == Code::deadline_exceeded ? 408 : 0);
    co_await answer_here(true);
    co_return false;
  }
  body.resize(filled);
  co_return true;
}

}  // namespace lathe::http
