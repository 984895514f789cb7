#include "http/server.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "http/connection.h"
#include "http/tls.h"

namespace lathe::http {

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

/// One I/O thread and its connections.
class IoThread {
 public:
  IoThread(Site& site, std::function<void()> emptied) : site_(site), emptied_(std::move(emptied)) {}

  Loop& loop() { return loop_; }

  void start() {
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "lathe-io");
      loop_.run();
    });
  }

  /// On this thread.
  void adopt(Fd fd) {
    auto connection = std::make_shared<Connection>(site_, loop_, std::move(fd));
    connection->slot = open_.size();
    open_.push_back(connection.get());
    if (open_.size() == 1) schedule_tick();
    Connection& one = *connection;
    loop_.spawn(one.run(), [this, connection = std::move(connection)](const std::exception_ptr& bug) {
      if (bug) report(bug);
      open_[connection->slot] = open_.back();
      open_[connection->slot]->slot = connection->slot;
      open_.pop_back();
      if (site_.stats.open.fetch_sub(1) == 1) emptied_();
    });
  }

  void close_idle() {
    loop_.post([this] {
      for (auto* one : open_) one->close_idle();
    });
  }
  void cut() {
    loop_.post([this] {
      for (auto* one : open_) one->cut();
    });
  }
  void stop() {
    if (!thread_.joinable()) return;
    loop_.stop();
    thread_.join();
  }

 private:
  void schedule_tick() {
    loop_.call_at(Connection::Clock::now() + tick_period(site_.options.limits), [this] {
      if (open_.empty()) return;
      for (auto* one : open_) one->tick(loop_.now());
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
  std::vector<Connection*> open_;
  Loop loop_;
  std::thread thread_;
};

/// Accepts connections on a loop until it is closed.
class Acceptor {
 public:
  Acceptor(Loop& loop, Fd fd) : socket_(loop, std::move(fd), false) {}

  Task<> run(std::function<void(Fd)> accepted) {
    for (;;) {
      const bool worth = co_await socket_.readable();
      if (!worth) co_return;
      Fd fd(::accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd) {
        accepted(std::move(fd));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        socket_.found_empty();
      } else if (errno != ECONNABORTED && errno != EINTR) {
        // Out of descriptors, most likely: pausing lets others be closed meanwhile.
        log::warning("accept: {}", std::generic_category().message(errno));
        socket_.found_empty();
        socket_.loop().call_at(Connection::Clock::now() + 100ms, [this] { socket_.look_again(); });
      }
    }
  }
  void close() { socket_.close(); }

 private:
  Socket socket_;
};

class EpollServer final : public Server {
 public:
  EpollServer(const ServerOptions& options, Handler& handler, TlsContext tls)
      : options_(options),
        tls_(std::move(tls)),
        workers_(options_.limits.max_workers, options_.limits.max_queued, kWorkerIdleTime),
        site_{options_, handler, workers_, tls_.get()} {
    for (std::size_t i = 0; i < std::max<std::size_t>(1, options_.io_threads); ++i)
      threads_.push_back(std::make_unique<IoThread>(site_, [this] { on_emptied(); }));
  }

  ~EpollServer() override {
    drain(0ms);
    workers_.stop();
    if (started_) wait_empty(kUnwindTime);
    for (auto& thread : threads_) thread->stop();
    // Coroutines still suspended refer to the site: nothing of it may be destroyed earlier.
    acceptor_.reset();
    threads_.clear();
  }

  Result<void> bind() {
    sockaddr_storage address{};
    socklen_t size = 0;
    const std::string host = options_.host == "localhost" ? "127.0.0.1" : options_.host;
    auto& v4 = reinterpret_cast<sockaddr_in&>(address);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
      v4.sin_family = AF_INET;
      v4.sin_port = htons(options_.port);
      size = sizeof v4;
    } else if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
      v6.sin6_family = AF_INET6;
      v6.sin6_port = htons(options_.port);
      size = sizeof v6;
    } else {
      return Error{Code::invalid_argument,
                   {"监听地址必须是 IP 地址：" + options_.host,
                    "the address to listen on must be an IP address: " + options_.host}};
    }
    Fd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    auto* plain = reinterpret_cast<sockaddr*>(&address);
    if (!fd || ::bind(fd.get(), plain, size) != 0 || ::listen(fd.get(), 4096) != 0 ||
        ::getsockname(fd.get(), plain, &size) != 0) {
      const auto where = options_.host + ":" + std::to_string(options_.port);
      const auto why = std::generic_category().message(errno);
      return Error{Code::unavailable,
                   {"无法监听 " + where + "：" + why, "cannot listen on " + where + ": " + why}};
    }
    port_ = ntohs(address.ss_family == AF_INET ? v4.sin_port : v6.sin6_port);
    acceptor_ = std::make_unique<Acceptor>(threads_[0]->loop(), std::move(fd));
    return {};
  }

  std::uint16_t port() const override { return port_; }

  void start() override {
    threads_[0]->loop().post([this] {
      threads_[0]->loop().spawn(acceptor_->run([this](Fd fd) { admit(std::move(fd)); }),
                                [](const std::exception_ptr&) {});
    });
    for (auto& thread : threads_) thread->start();
    started_ = true;
  }

  void drain(std::chrono::milliseconds patience) override {
    if (!started_) return;
    site_.draining = true;
    threads_[0]->loop().post([this] { acceptor_->close(); });
    for (auto& thread : threads_) thread->close_idle();
    if (wait_empty(patience)) return;
    for (auto& thread : threads_) thread->cut();
    wait_empty(kUnwindTime);
  }

  Counters counters() const override {
    const auto& s = site_.stats;
    return {s.open,      s.total,   s.requests,         s.bytes_in,
            s.bytes_out, s.refused, workers_.workers(), workers_.queued()};
  }

 private:
  void admit(Fd fd) {
    site_.stats.total.fetch_add(1, std::memory_order_relaxed);
    if (site_.draining) return;
    if (site_.stats.open.load() >= options_.limits.max_connections) {
      site_.stats.refused.fetch_add(1, std::memory_order_relaxed);
      if (!tls_) send_at_once(fd.get(), kTooMany, {});
      return;
    }
    site_.stats.open.fetch_add(1);
    IoThread& thread = *threads_[next_thread_++ % threads_.size()];
    if (&thread == threads_[0].get()) return thread.adopt(std::move(fd));
    thread.loop().post(
        [&thread, moved = std::make_shared<Fd>(std::move(fd))] { thread.adopt(std::move(*moved)); });
  }

  void on_emptied() {
    const std::lock_guard lock(mutex_);
    emptied_.notify_all();
  }

  bool wait_empty(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    return emptied_.wait_for(lock, patience, [this] { return site_.stats.open == 0; });
  }

  const ServerOptions options_;
  const TlsContext tls_;
  WorkerPool workers_;
  Site site_;
  std::mutex mutex_;
  std::condition_variable emptied_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  std::unique_ptr<Acceptor> acceptor_;
  std::size_t next_thread_ = 0;
  std::uint16_t port_ = 0;
  bool started_ = false;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(const ServerOptions& options, Handler& handler) {
  TlsContext tls;
  if (options.tls) tls = TRY(make_tls(*options.tls));
  auto server = std::make_unique<EpollServer>(options, handler, std::move(tls));
  TRY(server->bind());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace lathe::http
