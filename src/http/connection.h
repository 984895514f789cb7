#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "http/answer.h"
#include "http/body.h"
#include "http/message.h"
#include "http/parser.h"
#include "http/server.h"
#include "http/socket.h"
#include "http/tls.h"
#include "http/worker_pool.h"

/// The server's inside, for event-driven handlers.
namespace lathe::http {

class Connection;

/// An event-driven handler beside the blocking one: a gateway that must not hold a thread per request.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  /// Asked first for every request. On an I/O thread; must not block.
  virtual bool wants(const Request& head) = 0;
  /// Answers one request by writing raw bytes and calling Connection::finish. Runs on the connection's I/O
  /// thread and must never block it. The connection lives until the coroutine ends. Exceptions cut it.
  virtual Task<> serve(Connection& connection, const Request& head) = 0;
  /// Serves a connection that begins with HTTP/2's preface, which is still to be read (Connection::read_raw),
  /// until it ends. False: HTTP/2 is not spoken.
  virtual bool speaks_http2() const { return false; }
  virtual Task<> serve_http2(Connection& connection);
};

struct Stats {
  std::atomic<std::uint64_t> open{0}, total{0}, requests{0}, bytes_in{0}, bytes_out{0}, refused{0};
};

/// What all connections of a server share.
struct Site {
  const ServerOptions& options;
  Handler& handler;
  WorkerPool& workers;
  SSL_CTX* tls;
  Stats stats;
  std::atomic<bool> draining{false};
};

/// One client's connection. Everything runs on its I/O thread, save the exchange of a request on a worker,
/// during which the coroutine is parked.
class Connection final : public std::enable_shared_from_this<Connection>, private WorkerPool::Job {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(Site& site, Loop& loop, Fd fd);

  // For IoHandler, within serve().

  Loop& loop() const { return socket_.loop(); }
  Socket& socket() { return socket_; }
  const Limits& limits() const { return site_.options.limits; }
  /// The head's bytes' own framing of the body.
  Framing framing() const { return framing_; }
  bool to_http10() const { return http10_; }
  /// At least one decoded byte of the body; 0 is the end. Sends 100 Continue where the client waits for it.
  /// `max_body` does not apply: the caller counts.
  Task<Result<std::size_t>> read_body(std::span<char> into);
  /// Writes the pieces; false: the client has left, or took nothing for the write timeout.
  Task<bool> write(std::string_view first, std::string_view second = {}, std::string_view third = {});
  /// Sends what is taken at once of pieces that are small together, and takes it off them; true if that was
  /// all. `write` does the rest.
  bool write_now(std::string_view& first, std::string_view& second, std::string_view& third);
  static constexpr std::size_t kSmall = 4096;  ///< bytes
  /// What comes after the head, as it is; 0 is the end. For a connection that changed its protocol.
  Task<std::size_t> read_raw(std::span<char> into);
  /// The answer is complete. `reusable`: it was framed so that another may follow; the connection goes on if
  /// the request's body was read as well, the client wants it and the server does not drain.
  void finish(int status, bool reusable);
  /// The answer cannot be completed: the connection is reset, so that the client can see it.
  void abort();
  /// Nothing but the answer's framing may be in the way of another request.
  bool may_go_on() const;
  /// Between requests: a drain may end the wait at once, and so may the idle timeout.
  void wait_idle(bool idle);
  const std::string& peer() const { return peer_; }
  /// Words for the access log's line, each with a space before it.
  void annotate(std::string_view words) { note_ = words; }
  bool logs_access() const { return site_.options.access_log; }
  /// True once the client has left or the server drains.
  bool gone() const { return site_.draining.load(std::memory_order_relaxed) || left(); }
  /// True once the client has left.
  bool left() const { return socket_.hung_up(); }
  /// Calls `then` on the I/O thread when the client leaves, at once where it has; until forget_leaving.
  void when_left(std::function<void()> then) { socket_.on_hang_up(std::move(then)); }
  void forget_leaving() { socket_.forget_hang_up(); }

  // For the server.

  Task<> run();
  bool idle() const { return idle_; }
  /// Ends an idle wait; harmless otherwise.
  void close_idle();
  void cut();
  void tick(Clock::time_point now);
  std::size_t slot = 0;  ///< the server's index of this connection

 private:
  /// Suspends until a worker has run the job; false if none takes it.
  struct Park;

  Task<bool> handshake();
  Task<bool> read_head();
  void forget_answer();
  Task<bool> refuse_head(Refusal refusal);
  Task<bool> serve_request();
  Task<bool> serve_io();
  Task<bool> serve_on_worker(bool stream);
  Task<bool> read_whole_body();
  Task<bool> discard_small_body();
  Task<bool> answer_here(bool close);
  Task<bool> finish_answer();
  Task<> linger();
  Task<std::size_t> receive(std::span<char> into);
  Task<std::size_t> transmit(std::string_view first, std::string_view second, std::string_view third = {});

  std::optional<Text> make_request();
  void run_job() noexcept override;
  void handle_request(ChannelBody& body);
  void send_answer(Channel& channel);
  /// `status`: where it is not the error's own.
  Response failed(const Error& error, int status = 0);
  /// The same of a request whose path is not known, or not to be trusted.
  Response malformed(const Error& error, int status);
  void arm(std::chrono::milliseconds timeout);
  void disarm() { expiry_ = Clock::time_point::max(); }
  void log_request(int status);

  Site& site_;
  Socket socket_;
  std::unique_ptr<TlsStream> tls_;
  const int fd_;
  std::string peer_, note_;
  ReadBuffer buffer_;
  RequestHeadParser parser_;
  Clock::time_point expiry_ = Clock::time_point::max(), started_at_{};
  bool timed_out_ = false, idle_ = false, first_ = true, unread_ = false, http2_ = false;

  // The request under way; empty between two.
  Request request_;
  Response response_;
  AnswerFrame frame_;
  Framing framing_;
  BodyState body_;
  std::coroutine_handle<> parked_;
  std::size_t sent_ = 0;  ///< of frame_.head and a text body together
  std::uint64_t answer_bytes_ = 0;
  bool http10_ = false, keep_alive_ = false, expects_ = false, streamed_ = false, answer_ready_ = false;
  bool sent_all_ = false;
  std::atomic<bool> broken_{false};  ///< cut from the I/O thread even while a worker has the connection
};

}  // namespace lathe::http
