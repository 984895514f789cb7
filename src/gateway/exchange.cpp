#include "gateway/exchange.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>

namespace lathe::gateway {

using http::same_ignoring_case;

namespace {

constexpr std::size_t kReadSize = 32 * 1024;
/// A replica that cannot be reached gets nothing for this long where there is another.
constexpr std::chrono::seconds kShun{1};

/// Fields that speak of one connection only (RFC 9110 §7.6.1), and those the gateway writes itself.
bool is_hop_by_hop(std::string_view name) {
  for (const std::string_view hop :
       {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "proxy-authenticate", "proxy-authorization", "content-length"})
    if (same_ignoring_case(name, hop)) return true;
  return false;
}

/// Is `name` one of the fields that the Connection field itself lists?
bool is_listed(std::string_view connection_field, std::string_view name) {
  while (!connection_field.empty()) {
    const auto comma = std::min(connection_field.find(','), connection_field.size());
    auto one = connection_field.substr(0, comma);
    while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
    while (!one.empty() && (one.back() == ' ' || one.back() == '\t')) one.remove_suffix(1);
    if (same_ignoring_case(one, name)) return true;
    connection_field.remove_prefix(std::min(comma + 1, connection_field.size()));
  }
  return false;
}

/// Fields of the client's that an upstream must not be able to take for the gateway's own, or may not see.
bool is_withheld(std::string_view name) {
  for (const std::string_view field :
       {"host", "authorization", "expect", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
        "x-real-ip", "forwarded", "x-request-id"})
    if (same_ignoring_case(name, field)) return true;
  return false;
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

http::Task<Exchange::Outcome> Exchange::run(Forward& forward) {
  Outcome outcome = co_await run_once(forward);
  // A kept connection that the upstream closed just then: nothing was answered, so a request that may be
  // repeated goes out again on a new one (RFC 9110 §9.2.2).
  const bool repeatable = head_.method == http::Method::get || head_.method == http::Method::head ||
                          head_.method == http::Method::options || head_.method == http::Method::put ||
                          head_.method == http::Method::del;
  const bool stale = outcome == Outcome::failed && upstream_ && upstream_->reused && !upstream_->timed_out;
  if (stale && !body_touched_ && received_.empty() && repeatable) {
    unwatch_client();
    upstream_.reset();
    outcome = co_await run_once(forward);
  }
  unwatch_client();
  if (outcome == Outcome::failed || outcome == Outcome::untouched) ++lease_->failures;
  // A replica that died over it: another may do what can be repeated.
  if (outcome == Outcome::failed && upstream_ && !upstream_->timed_out && !body_touched_ && repeatable)
    co_return Outcome::untouched;
  co_return outcome;
}

http::Task<Exchange::Outcome> Exchange::run_once(Forward& forward) {
  auto& pool = boost::asio::use_service<UpstreamPool>(client_.executor().context());
  if (!error_.message.en.empty() || !(upstream_ = pool.reuse(lease_->upstream))) {
    error_ = {};
    upstream_ = pool.make(client_.executor());
    const bool connected = co_await connect();
    if (!connected) {
      lease_->shun(std::chrono::steady_clock::now() + kShun);
      fail(Code::unavailable, {"服务实例无法连接", "the replica cannot be reached"});
      co_return Outcome::untouched;
    }
  }
  const bool sent = co_await send_request(forward);
  // An upstream may answer before it has read everything, and close: its answer counts all the same.
  if (!sent && watch_->left) co_return Outcome::left;
  if (!sent && !upstream_->socket.is_open())
    co_return fail(Code::unavailable, {"服务实例断开了连接", "the replica closed the connection"});
  watch_client();
  co_return co_await relay_answer();
}

Exchange::Outcome Exchange::fail(Code code, Text text) {
  error_ = {code, std::move(text)};
  return watch_->left ? Outcome::left : Outcome::failed;
}

void Exchange::expect_within(std::chrono::milliseconds time) {
  upstream_->deadline = std::chrono::steady_clock::now() + time;
}

http::Task<bool> Exchange::connect() {
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(lease_->upstream.host, error);
  if (error) co_return false;
  expect_within(options_.connect_timeout);
  const boost::asio::ip::tcp::endpoint endpoint(address, lease_->upstream.port);
  const auto [failed] = co_await upstream_->socket.async_connect(endpoint, http::kAwait);
  if (failed) co_return false;
  upstream_->socket.set_option(boost::asio::ip::tcp::no_delay(true), error);
  co_return !error;
}

std::string Exchange::request_head(const Forward& forward) const {
  std::string out;
  out.reserve(1024);
  out.append(head_.method_text).append(" ").append(forward.target).append(" HTTP/1.1\r\n");
  append_field(out, "Host", fmt::format("{}:{}", lease_->upstream.host, lease_->upstream.port));
  const std::string_view connection = head_.headers.get("connection");
  for (const auto& [name, value] : head_.headers.list())
    if (!is_hop_by_hop(name) && !is_withheld(name) && !is_listed(connection, name))
      append_field(out, name, value);
  append_field(out, "X-Forwarded-For", head_.peer);
  append_field(out, "X-Request-Id", head_.id);
  const http::Framing framing = client_.framing();
  if (forward.body_read) {
    append_field(out, "Content-Length", std::to_string(forward.body.size()));
  } else if (framing.kind == http::Framing::Kind::length) {
    append_field(out, "Content-Length", std::to_string(framing.length));
  } else if (framing.kind == http::Framing::Kind::chunked) {
    append_field(out, "Transfer-Encoding", "chunked");
  } else if (head_.method == http::Method::post || head_.method == http::Method::put ||
             head_.method == http::Method::patch) {
    append_field(out, "Content-Length", "0");
  }
  return out += "\r\n";
}

http::Task<bool> Exchange::send_request(Forward& forward) {
  expect_within(options_.idle_timeout);
  const std::string head = request_head(forward);
  const bool sent = co_await write_upstream(head, forward.body);
  if (!sent) co_return false;
  if (forward.body_read || client_.framing().kind == http::Framing::Kind::none) co_return true;
  co_return co_await send_body();
}

http::Task<bool> Exchange::send_body() {
  const bool chunked = client_.framing().kind == http::Framing::Kind::chunked;
  auto buffer = std::make_unique<std::array<char, kReadSize>>();
  body_touched_ = true;
  while (true) {
    const auto got = co_await client_.read_body(*buffer);
    if (!got.ok()) {
      watch_->left = true;
      co_return false;
    }
    expect_within(options_.idle_timeout);
    if (*got == 0) {
      if (!chunked) co_return true;
      co_return co_await write_upstream("0\r\n\r\n");
    }
    lease_->bytes_in += *got;
    const std::string_view piece(buffer->data(), *got);
    bool sent = false;
    if (chunked) {
      const std::string size = fmt::format("{:x}\r\n", piece.size());
      sent = co_await write_upstream(size, piece);
      if (sent) sent = co_await write_upstream("\r\n");
    } else {
      sent = co_await write_upstream(piece);
    }
    if (!sent) co_return false;
  }
}

http::Task<bool> Exchange::write_upstream(std::string_view first, std::string_view second) {
  std::size_t done = http::send_at_once(upstream_->socket.native_handle(), first, second);
  while (done < first.size() + second.size()) {
    const std::size_t of_first = std::min(done, first.size());
    const std::array<boost::asio::const_buffer, 2> rest{boost::asio::buffer(first.substr(of_first)),
                                                        boost::asio::buffer(second.substr(done - of_first))};
    const auto [error, sent] = co_await upstream_->socket.async_write_some(rest, http::kAwait);
    if (error) co_return false;
    done += sent;
  }
  co_return true;
}

http::Task<bool> Exchange::read_upstream() {
  const std::size_t before = received_.size();
  received_.resize(before + kReadSize);
  const auto [error, got] = co_await upstream_->socket.async_read_some(
      boost::asio::buffer(received_.data() + before, kReadSize), http::kAwait);
  received_.resize(before + got);
  co_return !error && got > 0;
}

http::Task<Exchange::Outcome> Exchange::relay_answer() {
  expect_within(options_.first_byte_timeout);
  http::ResponseHeadParser parser({64 * 1024, 200});
  while (true) {
    const auto state = received_.empty() ? http::HeadParser::State::more : parser.parse(received_);
    if (state == http::HeadParser::State::refused)
      co_return fail(Code::unavailable,
                     {"服务实例的应答不是合法的 HTTP", "the replica's answer is not valid HTTP"});
    if (state == http::HeadParser::State::done) {
      if (parser.status() >= 200) break;
      if (parser.status() == 101)
        co_return fail(Code::unavailable, {"服务实例切换了协议", "the replica switched protocols"});
      received_.erase(0, parser.bytes());  // 100 and 103 are between the gateway and the upstream
      parser.reset();
      continue;
    }
    const bool more = co_await read_upstream();
    if (more) continue;
    if (upstream_->timed_out)
      co_return fail(Code::deadline_exceeded, {"服务实例没有及时应答", "the replica did not answer in time"});
    co_return fail(Code::unavailable, {"服务实例断开了连接", "the replica closed the connection"});
  }
  lease_->first_byte.add(std::chrono::steady_clock::now() - lease_.since());
  if (parser.status() >= 500) ++lease_->failures;

  const http::Framing framing = parser.framing(head_.method == http::Method::head);
  const bool keep_upstream = parser.keep_alive() && framing.kind != http::Framing::Kind::until_close;
  const int status = parser.status();
  bool chunked_out = false;
  std::string head = answer_head(parser, framing, chunked_out);
  received_.erase(0, parser.bytes());
  if (framing.kind == http::Framing::Kind::length && received_.size() > framing.length)
    co_return fail(Code::unavailable, {"服务实例的应答过长", "the replica sent more than it announced"});

  // The head leaves together with what there is of the body: one system call for a small answer.
  if (framing.kind == http::Framing::Kind::length && received_.size() == framing.length) {
    const bool sent = co_await client_.write(head, received_);
    lease_->bytes_out += received_.size();
    received_.clear();
    client_.finish(status, true);
    if (keep_upstream && sent) {
      unwatch_client();
      boost::asio::use_service<UpstreamPool>(client_.executor().context())
          .give_back(lease_->upstream, std::move(upstream_));
    }
    co_return sent ? Outcome::answered : Outcome::left;
  }
  const bool sent = co_await client_.write(head);
  if (!sent) co_return Outcome::left;
  const Outcome outcome = co_await relay_body(framing, chunked_out, status);
  if (outcome == Outcome::answered && keep_upstream && upstream_ && upstream_->socket.is_open() &&
      received_.empty()) {
    unwatch_client();
    boost::asio::use_service<UpstreamPool>(client_.executor().context())
        .give_back(lease_->upstream, std::move(upstream_));
  }
  co_return outcome;
}

std::string Exchange::answer_head(const http::ResponseHeadParser& parser, http::Framing framing,
                                  bool& chunked_out) const {
  std::string out;
  out.reserve(1024);
  out.append(fmt::format("HTTP/1.1 {} {}\r\n", parser.status(), parser.reason()));
  std::string connection;
  for (std::size_t i = 0; i < parser.field_count(); ++i)
    if (same_ignoring_case(parser.field(i).name, "connection"))
      connection.append(parser.field(i).value).append(",");
  const bool to_head = head_.method == http::Method::head;
  for (std::size_t i = 0; i < parser.field_count(); ++i) {
    const auto [name, value] = parser.field(i);
    const bool length_of_head = to_head && same_ignoring_case(name, "content-length");
    if (!length_of_head && (is_hop_by_hop(name) || is_listed(connection, name))) continue;
    append_field(out, name, value);
  }
  append_field(out, "X-Request-Id", head_.id);
  if (framing.kind == http::Framing::Kind::length) {
    append_field(out, "Content-Length", std::to_string(framing.length));
  } else if (framing.kind != http::Framing::Kind::none && !client_.to_http10()) {
    append_field(out, "Transfer-Encoding", "chunked");
    chunked_out = true;
  } else if (framing.kind == http::Framing::Kind::none && !to_head && parser.status() != 204 &&
             parser.status() != 304) {
    append_field(out, "Content-Length", "0");
  }
  return out += "\r\n";
}

http::Task<Exchange::Outcome> Exchange::relay_body(http::Framing framing, bool chunked_out, int status) {
  http::BodyState body(framing, UINT64_MAX);
  while (!body.done()) {
    if (received_.empty()) {
      expect_within(options_.idle_timeout);
      const bool more = co_await read_upstream();
      if (!more) {
        if (watch_->left) co_return Outcome::left;
        if (!body.ended().ok()) {  // cut short: the client must be able to see it
          client_.finish(status, false);
          ++lease_->failures;
          co_return Outcome::answered;
        }
        break;
      }
    }
    const auto step = body.decode(received_);
    if (!step.ok()) {
      client_.finish(status, false);
      ++lease_->failures;
      co_return Outcome::answered;
    }
    const std::string_view piece(received_.data(), step->produced);
    if (!piece.empty()) {
      lease_->bytes_out += piece.size();
      std::string framed;
      bool sent = false;
      if (chunked_out) {
        framed = fmt::format("{:x}\r\n", piece.size());
        framed.append(piece).append(body.done() ? "\r\n0\r\n\r\n" : "\r\n");
        sent = co_await client_.write(framed);
      } else {
        sent = co_await client_.write(piece);
      }
      if (!sent) co_return Outcome::left;
      if (chunked_out && body.done()) chunked_out = false;  // the end went with the last piece
    }
    received_.erase(0, step->consumed);
  }
  if (chunked_out) {
    const bool sent = co_await client_.write("0\r\n\r\n");
    if (!sent) co_return Outcome::left;
  }
  client_.finish(status, !client_.to_http10());
  co_return Outcome::answered;
}

/// While an answer is awaited or streamed, the upstream's work is ended as soon as the client has left.
void Exchange::watch_client() {
  watch_->active = true;
  client_.when_readable([watch = watch_, upstream = std::weak_ptr(upstream_), &client = client_] {
    if (!watch->active || !client.left()) return;  // over already, or a pipelined request
    watch->left = true;
    if (const auto connection = upstream.lock()) {
      boost::system::error_code ignored;
      connection->socket.close(ignored);
    }
  });
}

void Exchange::unwatch_client() {
  if (std::exchange(watch_->active, false)) client_.stop_watching();
}

}  // namespace lathe::gateway
