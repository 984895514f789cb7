#include "gateway/exchange.h"

#include <charconv>

#include "gateway/heads.h"

namespace lathe::gateway {

using http::Framing;

namespace {

constexpr std::size_t kReadSize = 16 * 1024;
constexpr std::size_t kMaxAnswerHead = 64 * 1024;
/// A replica that cannot be reached gets nothing for this long where there is another.
constexpr std::chrono::seconds kShun{1};

/// Of this thread: malloc is slow with this size.
thread_local std::vector<std::unique_ptr<char[]>> unused_buffers;
constexpr std::size_t kBuffersKept = 64;

std::unique_ptr<char[]> take_buffer() {
  if (unused_buffers.empty()) return std::make_unique_for_overwrite<char[]>(kReadSize);
  auto out = std::move(unused_buffers.back());
  unused_buffers.pop_back();
  return out;
}

bool repeatable(http::Method method) {
  return method == http::Method::get || method == http::Method::head || method == http::Method::options ||
         method == http::Method::put || method == http::Method::del;
}

}  // namespace

std::span<char> Exchange::Received::room() {
  if (begin_ == end_) begin_ = end_ = 0;
  if (capacity_ - end_ < kReadSize / 4) {
    const std::size_t larger = std::max(kReadSize, 2 * (end_ - begin_));
    auto data = larger == kReadSize ? take_buffer() : std::make_unique_for_overwrite<char[]>(larger);
    std::copy_n(data_.get() + begin_, end_ - begin_, data.get());
    end_ -= begin_;
    begin_ = 0;
    data_ = std::move(data);
    capacity_ = larger;
  }
  return {data_.get() + end_, capacity_ - end_};
}

void Exchange::Received::consume(std::size_t bytes) {
  begin_ += bytes;
  if (begin_ != end_) return;
  if (capacity_ == kReadSize && unused_buffers.size() < kBuffersKept)
    unused_buffers.push_back(std::move(data_));
  data_.reset();
  capacity_ = begin_ = end_ = 0;
}

http::Task<Exchange::Outcome> Exchange::run(Forward& forward) {
  upgrade_ = asks_for_websocket(head_) && client_.framing().kind == Framing::Kind::none;
  // A small body goes out together with the head, and can be sent again.
  const Framing framing = client_.framing();
  if (!forward.body_read && framing.kind == Framing::Kind::length && framing.length <= kReadSize) {
    forward.body.resize(framing.length);
    for (std::size_t filled = 0; filled < framing.length;) {
      const auto got =
          co_await client_.read_body({forward.body.data() + filled, forward.body.size() - filled});
      if (!got.ok() || *got == 0) co_return Outcome::left;
      filled += *got;
    }
    forward.body_read = true;
  }
  client_.when_left([this] { note_left(); });
  scans_ = forward.count_tokens;
  Outcome outcome = co_await run_once(forward);
  // A kept connection that the upstream closed just then: nothing was answered, so a request that may be
  // repeated goes out again on a new one (RFC 9110 §9.2.2).
  if (outcome == Outcome::failed && upstream_ && upstream_->reused && may_repeat()) {
    upstream_.reset();
    outcome = co_await run_once(forward);
  }
  if (left_ && outcome != Outcome::answered) outcome = Outcome::left;
  // A replica that died over it: another may do what can be repeated.
  if (outcome == Outcome::failed && may_repeat()) outcome = Outcome::untouched;
  if (outcome == Outcome::failed || outcome == Outcome::untouched)
    lease_->failures.fetch_add(1, std::memory_order_relaxed);
  co_return outcome;
}

bool Exchange::may_repeat() const {
  return repeatable(head_.method) && !body_touched_ && received_.empty() &&
         !(upstream_ && upstream_->timed_out) && !left_;
}

void Exchange::note_left() {
  left_ = true;
  // The upstream's work is ended as soon as nobody waits for it.
  if (upstream_) upstream_->socket.close();
}

Exchange::Outcome Exchange::fail(Code code, Text text) {
  error_ = {code, std::move(text)};
  return left_ ? Outcome::left : Outcome::failed;
}

http::Task<bool> Exchange::connect() {
  upstream_ = pool_.make(*lease_.get());
  if (!upstream_) co_return false;
  upstream_->expect_within(options_.connect_timeout);
  co_return co_await upstream_->socket.connected();
}

http::Task<Exchange::Outcome> Exchange::run_once(const Forward& forward) {
  const bool again = upstream_ == nullptr && !error_.message.en.empty();
  error_ = {};
  if (!again) upstream_ = pool_.reuse(*lease_.get(), !repeatable(head_.method));
  if (!upstream_) {
    const bool reached = co_await connect();
    if (left_) co_return Outcome::left;
    if (!reached) {
      upstream_.reset();
      lease_->shun(client_.loop().now() + kShun);
      fail(Code::unavailable, {"服务实例无法连接", "the replica cannot be reached"});
      co_return Outcome::untouched;
    }
  }
  if (options_.total_timeout.count() > 0) upstream_->last = client_.loop().now() + options_.total_timeout;
  upstream_->expect_within(options_.idle_timeout);
  const Framing framing =
      forward.body_read
          ? Framing{forward.body.empty() ? Framing::Kind::none : Framing::Kind::length, forward.body.size()}
          : client_.framing();
  {
    const std::string head = request_head({.request = head_,
                                           .target = forward.target,
                                           .authority = lease_->authority,
                                           .framing = framing,
                                           .upgrade = upgrade_,
                                           .plain_answer = forward.count_tokens});
    lease_->bytes_in.fetch_add(forward.body.size(), std::memory_order_relaxed);
    co_await client_.loop().burst();
    // An upstream may answer before it has read everything, and close: its answer counts all the same.
    std::string_view first = head, second = forward.body;
    if (!upstream_->socket.write_now(first, second)) {
      const bool sent = co_await upstream_->socket.write(first, second);
      if (!sent && left_) co_return Outcome::left;
    }
  }
  if (!forward.body_read && framing.kind != Framing::Kind::none) {
    body_touched_ = sending_.running = true;
    client_.loop().spawn(
        [](Exchange& self) -> http::Task<> {
          const bool sent = co_await self.send_body();
          self.sending_.failed = !sent;
        }(*this),
        [this](const std::exception_ptr&) {
          sending_.running = false;
          if (sending_.joining) client_.loop().resume_later(std::exchange(sending_.joining, nullptr));
        });
  }
  const Outcome outcome = co_await relay_answer();
  if (sending_.running) co_await join_sending();
  co_return outcome;
}

/// The answer is over and the body is not: nobody reads the rest of it.
http::Task<> Exchange::join_sending() {
  struct Join {
    Sending& sending;
    bool await_ready() const { return !sending.running; }
    void await_suspend(std::coroutine_handle<> waiting) const { sending.joining = waiting; }
    void await_resume() const {}
  };
  if (upstream_) upstream_->socket.close();
  client_.socket().cancel();
  co_await Join{sending_};
  client_.socket().renew();
}

http::Task<bool> Exchange::send_body() {
  const bool chunked = client_.framing().kind == Framing::Kind::chunked;
  const auto buffer = std::make_unique_for_overwrite<char[]>(kReadSize);
  // Room for the size line before a piece and the line's end after it, so that it leaves at once.
  constexpr std::size_t kBefore = 10, kAfter = 2;
  const std::span<char> room(buffer.get() + kBefore, kReadSize - kBefore - kAfter);
  while (upstream_) {
    const auto got = co_await client_.read_body(room);
    if (!got.ok()) {
      // Not all of the request: the upstream must not take it for whole.
      if (upstream_) upstream_->socket.close();
      co_return false;
    }
    if (!upstream_ || !upstream_->socket.is_open()) co_return false;
    upstream_->expect_within(options_.idle_timeout);
    if (*got == 0) {
      if (!chunked) co_return true;
      co_return co_await upstream_->socket.write("0\r\n\r\n");
    }
    lease_->bytes_in.fetch_add(*got, std::memory_order_relaxed);
    std::string_view piece(room.data(), *got);
    if (chunked) {
      char digits[16];
      const auto end = std::to_chars(std::begin(digits), std::end(digits), *got, 16).ptr;
      const auto size = static_cast<std::size_t>(end - digits);
      char* const start = room.data() - size - 2;
      std::copy_n(digits, size, start);
      std::copy_n("\r\n", 2, start + size);
      std::copy_n("\r\n", 2, room.data() + *got);
      piece = {start, size + 2 + *got + 2};
    }
    const bool sent = co_await upstream_->socket.write(piece);
    if (!sent) co_return false;
  }
  co_return false;
}

http::Task<bool> Exchange::read_upstream() {
  for (;;) {
    const bool worth = co_await upstream_->socket.readable();
    if (!worth) co_return false;
    const auto got = upstream_->socket.try_read(received_.room());
    if (got == http::Socket::kWouldBlock) {
      received_.consume(0);
      continue;
    }
    received_.add(static_cast<std::size_t>(got));
    co_return got > 0;
  }
}

Exchange::Outcome Exchange::broken_connection() {
  if (upstream_->timed_out)
    return fail(Code::deadline_exceeded, {"服务实例没有及时应答", "the replica did not answer in time"});
  return fail(Code::unavailable, {"服务实例断开了连接", "the replica closed the connection"});
}

http::Task<Exchange::Outcome> Exchange::relay_answer() {
  upstream_->expect_within(options_.first_byte_timeout);
  http::ResponseHeadParser parser({kMaxAnswerHead, 200});
  while (true) {
    const auto state = received_.empty() ? http::HeadParser::State::more : parser.parse(received_.view());
    if (state == http::HeadParser::State::refused)
      co_return fail(Code::unavailable,
                     {"服务实例的应答不是合法的 HTTP", "the replica's answer is not valid HTTP"});
    if (state == http::HeadParser::State::done) {
      if (parser.status() >= 200 || (parser.status() == 101 && upgrade_)) break;
      if (parser.status() == 101)
        co_return fail(Code::unavailable, {"服务实例切换了协议", "the replica switched protocols"});
      received_.consume(parser.bytes());  // 100 and 103 are between the gateway and the upstream
      parser.reset();
      continue;
    }
    // What read_upstream does, without a frame of its own: every answer waits here.
    const bool worth = co_await upstream_->socket.readable();
    const auto got = worth ? upstream_->socket.try_read(received_.room()) : 0;
    if (got == 0) co_return broken_connection();
    if (got > 0) received_.add(static_cast<std::size_t>(got));
  }
  lease_.begins_answer();
  if (parser.status() >= 500) lease_->failures.fetch_add(1, std::memory_order_relaxed);

  const Framing framing = parser.framing(head_.method == http::Method::head);
  const bool stream = framing.kind == Framing::Kind::chunked || framing.kind == Framing::Kind::until_close;
  const bool keep_upstream =
      parser.keep_alive() && framing.kind != Framing::Kind::until_close && !sending_.running;
  const int status = parser.status();
  if (stream || status == 101) upstream_->last = Moment::max();  // a stream may last
  if (framing.kind == Framing::Kind::length && received_.view().size() - parser.bytes() > framing.length)
    co_return fail(Code::unavailable, {"服务实例的应答过长", "the replica sent more than it announced"});
  const bool chunked_out = stream && !client_.to_http10();
  const std::string head = answer_head({.parser = parser,
                                        .request = head_,
                                        .framing = framing,
                                        .chunked = chunked_out,
                                        .close = status != 101 && !client_.may_go_on()});
  scans_ = scans_ && status == 200;
  received_.consume(parser.bytes());
  Outcome outcome = Outcome::answered;
  if (status == 101) {
    const bool sent = co_await client_.write(head);
    client_.finish(status, false);
    if (!sent) co_return Outcome::left;
    co_return co_await tunnel();
  }
  const std::string_view here = received_.view();
  if (framing.kind == Framing::Kind::none ||
      (framing.kind == Framing::Kind::length && here.size() == framing.length)) {
    // The head leaves together with what there is of the body: one system call for a small answer.
    const std::string_view body = framing.kind == Framing::Kind::none ? std::string_view() : here;
    if (scans_) usage_.feed(body);
    co_await client_.loop().burst();
    std::string_view first = head, second = body, none;
    bool sent = client_.write_now(first, second, none);
    if (!sent) sent = co_await client_.write(first, second);
    lease_->bytes_out.fetch_add(body.size(), std::memory_order_relaxed);
    received_.consume(body.size());
    client_.finish(status, true);
    if (!sent) outcome = Outcome::left;
  } else {
    const bool sent = co_await client_.write(head);
    if (!sent) co_return Outcome::left;
    outcome = co_await relay_body(framing, chunked_out, status);
  }
  if (outcome == Outcome::answered && keep_upstream && upstream_->socket.is_open() && received_.empty())
    pool_.give_back(*lease_.get(), std::move(upstream_));
  co_return outcome;
}

/// The client must be able to see that something is missing.
Exchange::Outcome Exchange::cut_short(int status) {
  client_.finish(status, false);
  if (left_) return Outcome::left;
  client_.abort();
  lease_->failures.fetch_add(1, std::memory_order_relaxed);
  upstream_->socket.close();
  return Outcome::answered;
}

http::Task<Exchange::Outcome> Exchange::relay_body(Framing framing, bool chunked_out, int status) {
  http::BodyState body(framing, UINT64_MAX);
  bool ended = false;  // for the client too
  while (!body.done()) {
    if (received_.empty()) {
      upstream_->expect_within(options_.idle_timeout);
      const bool more = co_await read_upstream();
      if (!more) {
        if (left_ || upstream_->timed_out || !body.ended().ok()) co_return cut_short(status);
        break;
      }
    }
    const auto bytes = received_.bytes();
    const auto step = body.decode(bytes);
    if (!step.ok()) co_return cut_short(status);
    const std::string_view piece(bytes.data(), step->produced);
    if (!piece.empty()) {
      if (scans_) usage_.feed(piece);
      lease_->bytes_out.fetch_add(piece.size(), std::memory_order_relaxed);
      ended = body.done();
      const bool sent = co_await pass_on(piece, chunked_out, ended);
      if (!sent) co_return Outcome::left;
    }
    received_.consume(step->consumed);
  }
  if (chunked_out && !ended) {
    const bool sent = co_await client_.write("0\r\n\r\n");
    if (!sent) co_return Outcome::left;
  }
  client_.finish(status, chunked_out || framing.kind == Framing::Kind::length);
  co_return Outcome::answered;
}

http::Task<bool> Exchange::pass_on(std::string_view piece, bool chunked, bool last) {
  char line[20];
  std::string_view size, end;
  if (chunked) {
    char* stop = std::to_chars(std::begin(line), std::end(line), piece.size(), 16).ptr;
    *stop++ = '\r';
    *stop++ = '\n';
    size = {line, static_cast<std::size_t>(stop - line)};
    end = last ? "\r\n0\r\n\r\n" : "\r\n";
  }
  if (piece.size() < http::Connection::kSmall) {
    co_await client_.loop().burst();
    if (client_.write_now(size, piece, end)) co_return true;
  }
  co_return co_await client_.write(size, piece, end);
}

http::Task<Exchange::Outcome> Exchange::tunnel() {
  sending_.running = true;
  client_.forget_leaving();  // an end is passed on like any other byte
  client_.loop().spawn(pump_to_upstream(), [this](const std::exception_ptr&) {
    sending_.running = false;
    if (sending_.joining) client_.loop().resume_later(std::exchange(sending_.joining, nullptr));
  });
  for (;;) {
    upstream_->expect_within(options_.idle_timeout);
    if (received_.empty()) {
      const bool more = co_await read_upstream();
      if (!more) break;
    }
    lease_->bytes_out.fetch_add(received_.view().size(), std::memory_order_relaxed);
    const bool sent = co_await client_.write(received_.view());
    if (!sent) break;
    received_.consume(received_.view().size());
  }
  co_await join_sending();
  co_return Outcome::answered;
}

http::Task<> Exchange::pump_to_upstream() {
  const auto buffer = std::make_unique_for_overwrite<char[]>(kReadSize);
  for (;;) {
    const auto got = co_await client_.read_raw({buffer.get(), kReadSize});
    if (got == 0) break;
    upstream_->expect_within(options_.idle_timeout);
    lease_->bytes_in.fetch_add(got, std::memory_order_relaxed);
    const bool sent = co_await upstream_->socket.write({buffer.get(), got});
    if (!sent) break;
  }
  // Whoever still speaks may finish, but not for long.
  if (upstream_->socket.is_open()) {
    ::shutdown(upstream_->socket.fd(), SHUT_WR);
    upstream_->last = client_.loop().now() + std::chrono::seconds{5};
  }
}

}  // namespace lathe::gateway
