// The whole gateway between a client and an upstream of which one sends whatever the fuzzer likes: HTTP/1.1
// and HTTP/2 on either side. Nothing may crash, leak or hang.
#include <arpa/inet.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "base/log.h"
#include "gateway/gateway.h"
#include "http/connection.h"

namespace {

using namespace lathe;

class NoHandler final : public http::Handler {
 public:
  Intake intake(const http::Request&) override { return {.refuse = http::Response::text(404, "no\n")}; }
  http::Response handle(http::Request&) override { return http::Response::text(404, "no\n"); }
  http::Response failure(const http::Request&, const Error& error, int) override {
    return http::Response::text(http_status(error.code), "no\n");
  }
};

/// Answers every connection with the bytes it was given, and closes.
class Upstream {
 public:
  Upstream() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, 64) != 0 ||
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Upstream() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  std::uint16_t port() const { return port_; }
  void answer_with(std::string bytes) {
    const std::scoped_lock lock(mutex_);
    bytes_ = std::move(bytes);
  }

 private:
  void serve() {
    for (;;) {
      const int one = ::accept(fd_, nullptr, nullptr);
      if (one < 0 && errno == EINVAL) return;  // shut down
      if (one < 0) continue;
      std::string bytes;
      {
        const std::scoped_lock lock(mutex_);
        bytes = bytes_;
      }
      char dropped[4096];
      [[maybe_unused]] auto got = ::recv(one, dropped, sizeof dropped, 0);
      got = ::send(one, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      ::shutdown(one, SHUT_WR);
      while (::recv(one, dropped, sizeof dropped, 0) > 0) {
      }
      ::close(one);
    }
  }
  int fd_;
  std::uint16_t port_ = 0;
  std::mutex mutex_;
  std::string bytes_;
  std::thread thread_;
};

std::string http2_request() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session* session = nullptr;
  nghttp2_session_client_new(&session, callbacks, nullptr);
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, nullptr, 0);
  const std::pair<std::string, std::string> fields[] = {
      {":method", "POST"}, {":scheme", "http"}, {":path", "/serve/two/a.B/C"},
      {":authority", "h"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
  std::vector<nghttp2_nv> list;
  for (const auto& [name, value] : fields)
    list.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
                    reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(),
                    value.size(), NGHTTP2_NV_FLAG_NONE});
  nghttp2_submit_request(session, nullptr, list.data(), list.size(), nullptr, nullptr);
  std::string out;
  const std::uint8_t* data = nullptr;
  for (ssize_t size = 0; (size = nghttp2_session_mem_send(session, &data)) > 0;)
    out.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
  nghttp2_session_del(session);
  nghttp2_session_callbacks_del(callbacks);
  return out;
}

struct World {
  World() {
    options.access_log = false;
    options.io_handler = &gateway->io_handler();
    options.limits.idle_timeout = options.limits.header_timeout = std::chrono::milliseconds{200};
    const auto service = [&](std::string name, bool grpc) {
      gateway::ServiceRoute route;
      route.id = route.name = std::move(name);
      gateway::VersionRoute version;
      version.id = "v" + route.id;
      version.grpc = grpc;
      version.upstreams = {{"u" + route.id, "127.0.0.1", upstream.port()}};
      route.versions.push_back(std::move(version));
      return route;
    };
    gateway->set_routes({service("one", false), service("two", true)});
  }
  static gateway::Hooks hooks() {
    return {.authenticate = [](const http::Request&) -> Result<http::Identity> {
              return http::Identity{"1", "u", false};
            },
            .may_call = [](const http::Identity&, const gateway::ServiceRoute&) { return true; }};
  }

  Upstream upstream;
  std::unique_ptr<gateway::Gateway> gateway = gateway::Gateway::create({}, hooks());
  NoHandler handler;
  http::ServerOptions options;
  http::WorkerPool workers{1, 16, std::chrono::milliseconds{1000}};
  const std::string http2 = http2_request();
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  if (size < 1 || size > 64 * 1024) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string from_client = text;
  if (data[0] % 4 == 1) from_client = "GET /serve/one/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
  if (data[0] % 4 == 2) from_client = world.http2;
  if (data[0] % 4 == 3) from_client = world.http2 + text;
  world.upstream.answer_with(data[0] % 4 == 0 ? "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" : text);

  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0) std::abort();
  http::Site site{world.options, world.handler, world.workers, nullptr, {}, {}};
  {
    http::Loop loop;
    http::Connection connection(site, loop, Fd(ends[0]));
    // The client waits for an answer before it leaves: until the server has closed, or for a moment.
    std::thread client([&, fd = ends[1]] {
      ::fcntl(fd, F_SETFL, 0);
      [[maybe_unused]] auto sent = ::send(fd, from_client.data(), from_client.size(), MSG_NOSIGNAL);
      timeval patience{.tv_sec = 0, .tv_usec = 3000};
      ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      char dropped[4096];
      while (::recv(fd, dropped, sizeof dropped, 0) > 0) {
      }
      ::close(fd);
    });
    loop.spawn(connection.run(), [&](const std::exception_ptr& bug) {
      if (bug) std::abort();
      loop.stop();
    });
    loop.run();
    client.join();
  }
  return 0;
}
