#pragma once

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
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
#include "http/timed_socket.h"
#include "http/worker_pool.h"

/// The server's inside, for event-driven handlers. Compiles Asio: include it in few places.
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
  virtual Task<> serve(Connection& connection, Request head) = 0;
};

struct Stats {
  std::atomic<std::uint64_t> open{0}, total{0}, requests{0}, bytes_in{0}, bytes_out{0}, refused{0};
};

/// What all connections of a server share.
struct Site {
  const ServerOptions& options;
  Handler& handler;
  WorkerPool& workers;
  boost::asio::ssl::context* tls;
  Stats stats;
  std::atomic<bool> draining{false};
};

/// One client's connection. Everything runs on its I/O thread, save the exchange of a request on a worker,
/// during which the coroutine is parked.
class Connection final : public std::enable_shared_from_this<Connection>, private WorkerPool::Job {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(Site& site, Socket socket);
  ~Connection();

  // For IoHandler, within serve().

  Executor executor() { return socket_.get_executor(); }
  const Limits& limits() const { return site_.options.limits; }
  /// The head's bytes' own framing of the body.
  Framing framing() const { return framing_; }
  bool to_http10() const { return http10_; }
  /// At least one decoded byte of the body; 0 is the end. Sends 100 Continue where the client waits for it.
  /// `max_body` does not apply: the caller counts.
  Task<Result<std::size_t>> read_body(std::span<char> into);
  /// Writes both pieces; false: the client has left, or took nothing for the write timeout.
  Task<bool> write(std::string_view first, std::string_view second = {});
  /// The answer is complete. `reusable`: it was framed so that another may follow; the connection goes on if
  /// the request's body was read as well, the client wants it and the server does not drain.
  void finish(int status, bool reusable);
  /// True once the client has left or the server drains.
  bool gone() const { return site_.draining.load(std::memory_order_relaxed) || left(); }
  /// True once the client has left.
  bool left() const { return peer_closed(fd_); }
  /// Calls `then` on the I/O thread when the client sends something or leaves; once, and not while the body
  /// is being read. stop_watching ends it; a call that was already on its way may still come.
  void when_readable(std::function<void()> then);
  void stop_watching();

  // For the server.

  Task<> run();
  bool idle() const { return idle_; }
  /// Ends an idle wait; harmless otherwise.
  void close_idle();
  void cut();
  void tick(Clock::time_point now);
  std::size_t slot = 0;  ///< the server's index of this connection

 private:
  using ParkToken = boost::asio::use_awaitable_t<Executor>;
  using Parked = boost::asio::async_result<ParkToken, void(bool)>::handler_type;
  enum class Sent { nothing, partly, whole, failed };

  Task<bool> handshake();
  Task<bool> read_head();
  Task<bool> refuse_head(Refusal refusal);
  Task<bool> serve_request();
  Task<bool> serve_io();
  Task<bool> serve_on_worker(bool stream);
  Task<bool> read_whole_body();
  Task<bool> discard_small_body();
  Task<bool> answer_here(bool close);
  Task<bool> finish_answer();
  Task<bool> park();
  Task<> linger();
  Task<std::size_t> receive(std::span<char> into);
  Task<std::size_t> transmit(std::string_view first, std::string_view second);

  std::optional<Text> make_request();
  void run_job() noexcept override;
  void handle_request(ChannelBody& body);
  void send_answer(Channel& channel);
  Response failed(const Error& error);
  bool may_go_on() const;
  void arm(std::chrono::milliseconds timeout);
  void disarm() { expiry_ = Clock::time_point::max(); }
  void log_request(int status);

  Site& site_;
  TimedSocket socket_;
  std::unique_ptr<TlsStream> tls_;
  const int fd_;
  boost::asio::ip::tcp protocol_;
  std::string peer_;
  ReadBuffer buffer_;
  RequestHeadParser parser_;
  Clock::time_point expiry_ = Clock::time_point::max(), started_at_{};
  bool timed_out_ = false, idle_ = false, first_ = true, unread_ = false;

  // The request under way.
  Request request_;
  Response response_;
  AnswerFrame frame_;
  Framing framing_;
  BodyState body_;
  std::optional<Parked> parked_;
  std::size_t sent_ = 0;  ///< of frame_.head and a text body together
  std::uint64_t answer_bytes_ = 0;
  bool http10_ = false, keep_alive_ = false, expects_ = false, streamed_ = false, answer_ready_ = false;
  bool sent_all_ = false;
  std::atomic<bool> broken_{false};  ///< cut from the I/O thread even while a worker has the connection
};

}  // namespace lathe::http
