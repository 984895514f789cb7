#include "http/server.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "http/connection.h"
#include "http/tls.h"

namespace lathe::http {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

using namespace std::chrono_literals;

constexpr auto kWorkerIdleTime = 10s;
/// What drain and the destructor give connections to notice that they were cut.
constexpr auto kUnwindTime = 2s;
constexpr std::string_view kTooMany =
    "HTTP/1.1 503 Service Unavailable\r\nServer: lathe\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n";

/// Timeouts are looked at this often, so that a request costs no timer of its own.
std::chrono::milliseconds tick_period(const Limits& limits) {
  const auto shortest =
      std::min({limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.write_timeout});
  return std::clamp<std::chrono::milliseconds>(shortest / 8, 5ms, 500ms);
}

using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

/// One I/O thread and its connections.
class Loop {
 public:
  Loop(Site& site, std::function<void()> emptied)
      : site_(site), emptied_(std::move(emptied)), work_(context_.get_executor()), ticker_(context_) {}

  asio::io_context& context() { return context_; }

  void start() {
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "lathe-io");
      context_.run();
    });
  }

  /// On this loop's thread.
  void adopt(Socket socket) {
    auto connection = std::make_shared<Connection>(site_, std::move(socket));
    connection->slot = open_.size();
    open_.push_back(connection.get());
    if (open_.size() == 1) schedule_tick();
    asio::co_spawn(context_, connection->run(), [this, connection](std::exception_ptr bug) {
      if (bug) report(bug);
      open_[connection->slot] = open_.back();
      open_[connection->slot]->slot = connection->slot;
      open_.pop_back();
      if (site_.stats.open.fetch_sub(1) == 1) emptied_();
    });
  }

  void close_idle() {
    asio::post(context_, [this] {
      for (auto* one : open_) one->close_idle();
    });
  }
  void cut() {
    asio::post(context_, [this] {
      for (auto* one : open_) one->cut();
    });
  }
  void stop() {
    work_.reset();
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void schedule_tick() {
    ticker_.expires_after(tick_period(site_.options.limits));
    ticker_.async_wait([this](boost::system::error_code error) {
      if (error || open_.empty()) return;
      const auto now = Connection::Clock::now();
      for (auto* one : open_) one->tick(now);
      schedule_tick();
    });
  }

  static void report(const std::exception_ptr& bug) {
    try {
      std::rethrow_exception(bug);
    } catch (const std::exception& error) {
      log::error("a connection ended by a bug: {}", error.what());
    }
  }

  Site& site_;
  std::function<void()> emptied_;
  asio::io_context context_{1};
  asio::executor_work_guard<Executor> work_;
  Timer ticker_;
  std::vector<Connection*> open_;
  std::thread thread_;
};

class AsioServer final : public Server {
 public:
  AsioServer(const ServerOptions& options, Handler& handler, std::unique_ptr<asio::ssl::context> tls)
      : options_(options),
        tls_(std::move(tls)),
        workers_(options_.limits.max_workers, options_.limits.max_queued, kWorkerIdleTime),
        site_{options_, handler, workers_, tls_.get()} {
    for (std::size_t i = 0; i < std::max<std::size_t>(1, options_.io_threads); ++i)
      loops_.push_back(std::make_unique<Loop>(site_, [this] { on_emptied(); }));
    acceptor_.emplace(loops_[0]->context());
    retry_.emplace(loops_[0]->context());
  }

  ~AsioServer() override {
    drain(0ms);
    workers_.stop();
    if (started_) wait_empty(kUnwindTime);
    for (auto& loop : loops_) loop->stop();
    // Frames still suspended refer to the site and to each other's loops: nothing may be destroyed earlier.
    retry_.reset();
    acceptor_.reset();
    loops_.clear();
  }

  Result<void> bind() {
    boost::system::error_code error;
    auto address = asio::ip::make_address(options_.host == "localhost" ? "127.0.0.1" : options_.host, error);
    if (error)
      return Error{Code::invalid_argument,
                   {"监听地址必须是 IP 地址：" + options_.host,
                    "the address to listen on must be an IP address: " + options_.host}};
    const tcp::endpoint endpoint(address, options_.port);
    acceptor_->open(endpoint.protocol(), error);
    if (!error) acceptor_->set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_->bind(endpoint, error);
    if (!error) acceptor_->listen(4096, error);
    if (error) {
      const auto where = options_.host + ":" + std::to_string(options_.port);
      return Error{Code::unavailable,
                   {"无法监听 " + where + "：" + error.message(),
                    "cannot listen on " + where + ": " + error.message()}};
    }
    port_ = acceptor_->local_endpoint().port();
    return {};
  }

  std::uint16_t port() const override { return port_; }

  void start() override {
    for (auto& loop : loops_) loop->start();
    started_ = true;
    asio::post(loops_[0]->context(), [this] { accept(); });
  }

  void drain(std::chrono::milliseconds patience) override {
    if (!started_) return;
    site_.draining = true;
    asio::post(loops_[0]->context(), [this] {
      boost::system::error_code ignored;
      acceptor_->close(ignored);
      retry_->cancel();
    });
    for (auto& loop : loops_) loop->close_idle();
    if (wait_empty(patience)) return;
    for (auto& loop : loops_) loop->cut();
    wait_empty(kUnwindTime);
  }

  Counters counters() const override {
    const auto& s = site_.stats;
    return {s.open,      s.total,   s.requests,         s.bytes_in,
            s.bytes_out, s.refused, workers_.workers(), workers_.queued()};
  }

 private:
  void accept() {
    Loop& loop = *loops_[next_loop_++ % loops_.size()];
    acceptor_->async_accept(loop.context(), [this, &loop](boost::system::error_code error, Socket socket) {
      if (site_.draining || error == asio::error::operation_aborted) return;
      if (error) {
        // Out of descriptors, most likely: pausing lets others be closed meanwhile.
        log::warning("accept: {}", error.message());
        retry_->expires_after(100ms);
        retry_->async_wait([this](boost::system::error_code stopped) {
          if (!stopped) accept();
        });
        return;
      }
      admit(loop, std::move(socket));
      accept();
    });
  }

  void admit(Loop& loop, Socket socket) {
    site_.stats.total.fetch_add(1, std::memory_order_relaxed);
    if (site_.stats.open.load() >= options_.limits.max_connections) {
      site_.stats.refused.fetch_add(1, std::memory_order_relaxed);
      if (!tls_) send_at_once(socket.native_handle(), kTooMany, {});
      return;
    }
    site_.stats.open.fetch_add(1);
    if (&loop == loops_[0].get()) return loop.adopt(std::move(socket));
    asio::post(loop.context(),
               [&loop, moved = std::move(socket)]() mutable { loop.adopt(std::move(moved)); });
  }

  void on_emptied() {
    const std::lock_guard lock(mutex_);
    emptied_.notify_all();
  }

  bool wait_empty(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    return emptied_.wait_for(lock, patience, [this] { return site_.stats.open == 0; });
  }

  using Acceptor = asio::basic_socket_acceptor<tcp, Executor>;
  const ServerOptions options_;
  std::unique_ptr<asio::ssl::context> tls_;
  WorkerPool workers_;
  Site site_;
  std::mutex mutex_;
  std::condition_variable emptied_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::optional<Acceptor> acceptor_;
  std::optional<Timer> retry_;
  std::size_t next_loop_ = 0;
  std::uint16_t port_ = 0;
  bool started_ = false;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(const ServerOptions& options, Handler& handler) {
  std::unique_ptr<asio::ssl::context> tls;
  if (options.tls) tls = TRY(make_tls(*options.tls));
  auto server = std::make_unique<AsioServer>(options, handler, std::move(tls));
  TRY(server->bind());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace lathe::http
