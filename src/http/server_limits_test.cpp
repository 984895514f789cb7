// The server at its limits: time, load, memory, and its own end.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "http/client.h"
#include "http/server.h"
#include "http/testing.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;
using testing::Peer;
using testing::TestHandler;
using testing::TestServer;

ServerOptions impatient() {
  ServerOptions options;
  options.limits.header_timeout = options.limits.idle_timeout = 40ms;
  options.limits.body_timeout = options.limits.write_timeout = 40ms;
  return options;
}

TEST(HttpServer, TimesOut) {
  TestServer server(impatient());
  Peer silent(server.port());
  EXPECT_TRUE(silent.closed());
  Peer slow(server.port());
  slow.send("GET / HT");
  EXPECT_EQ(slow.answer().status, 408);
  EXPECT_TRUE(slow.closed());
  Peer halfway(server.port());
  halfway.send("GET /there HTTP/1.1\r\nAccept-Language: en\r\nX: ");
  const auto late = halfway.answer();
  EXPECT_EQ(late.status, 408);
  EXPECT_EQ(late.body, "/there: bad request: the head did not arrive in time");
  Peer idle(server.port());
  idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  EXPECT_TRUE(idle.closed());
  Peer whole(server.port());
  whole.send("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
  EXPECT_EQ(whole.answer().status, 408);
  EXPECT_TRUE(whole.closed());
  Peer streamed(server.port());
  streamed.send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
  EXPECT_EQ(streamed.answer().status, 504);
  EXPECT_TRUE(streamed.closed());
}

TEST(HttpServer, SlowReadersHoldNoWorkerAndAreCut) {
  auto options = impatient();
  options.limits.max_workers = 1;
  options.limits.write_timeout = 300ms;
  TestServer server(options);
  Peer slow(server.port());
  slow.send("GET /big?length=50000000 HTTP/1.1\r\nHost: a\r\n\r\n");
  Peer other(server.port());
  other.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(other.answer().body, "GET /hello ");
  // Not read until the server has given up.
  while (server->counters().connections_open > 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(slow.answer().status, 0);
}

TEST(HttpServer, NoticesClientsThatLeaveInTheMiddle) {
  TestServer server;
  {
    Peer peer(server.port());
    peer.send("GET /follow HTTP/1.1\r\nHost: a\r\n\r\n");
    Peer half(server.port());
    half.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    Peer whole(server.port());
    whole.send("PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    while (server->counters().requests_total < 3 || server.handler().followers_begun < 1)
      std::this_thread::sleep_for(1ms);
  }
  while (server->counters().connections_open > 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(server.handler().followers_ended, 1);
}

TEST(HttpServer, SaysWhenItIsBusy) {
  ServerOptions options;
  options.limits.max_workers = 1;
  options.limits.max_queued = 1;
  TestServer server(options);
  Peer running(server.port()), queued(server.port()), refused(server.port());
  running.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  server.handler().await_waiting(1);
  queued.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  while (server->counters().queued < 1) std::this_thread::sleep_for(1ms);
  refused.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto answer = refused.answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get("Retry-After"), "1");
  server.handler().release();
  EXPECT_EQ(running.answer().status, 200);
  EXPECT_EQ(queued.answer().status, 200);
  refused.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(refused.answer().status, 200);
}

TEST(HttpServer, LimitsConnections) {
  ServerOptions options;
  options.limits.max_connections = 2;
  TestServer server(options);
  Peer first(server.port()), second(server.port());
  for (auto* peer : {&first, &second}) {
    peer->send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(peer->answer().status, 200);
  }
  Peer third(server.port());
  EXPECT_EQ(third.answer().status, 503);
  EXPECT_TRUE(third.closed());
  first.send("GET /hello HTTP/1.0\r\n\r\n");
  EXPECT_EQ(first.answer().status, 200);
  EXPECT_TRUE(first.closed());
  while (server->counters().connections_open > 1) std::this_thread::sleep_for(1ms);
  Peer fourth(server.port());
  fourth.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(fourth.answer().status, 200);
}

TEST(HttpServer, Drains) {
  TestServer server;
  Peer idle(server.port()), waiting(server.port()), following(server.port());
  idle.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  following.send("GET /follow HTTP/1.1\r\nHost: a\r\n\r\n");
  waiting.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  server.handler().await_waiting(1);
  std::thread drainer([&] { server->drain(10s); });
  EXPECT_TRUE(idle.closed());
  EXPECT_EQ(following.answer().body, "following");
  server.handler().release();
  const auto answer = waiting.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.get("Connection"), "close");
  EXPECT_TRUE(waiting.closed());
  drainer.join();
  EXPECT_EQ(server->counters().connections_open, 0u);
  EXPECT_THROW(Peer(server.port()), std::runtime_error);
}

TEST(HttpServer, CutsWhatDoesNotDrain) {
  TestServer server;
  Peer half(server.port());
  half.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
  while (server->counters().requests_total < 1) std::this_thread::sleep_for(1ms);
  server->drain(20ms);
  EXPECT_EQ(half.answer().status, 0);
  EXPECT_EQ(server->counters().connections_open, 0u);
}

TEST(HttpServer, ServesManyAtOnceOnSeveralThreads) {
  ServerOptions options;
  options.io_threads = 3;
  TestServer server(options);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      Client client({.port = server.port()});
      for (int i = 0; i < 50; ++i) {
        ClientRequest request{.method = Method::put, .target = i % 2 ? "/count" : "/hello"};
        request.body = std::string(static_cast<std::size_t>(t * 1000 + i), 'x');
        const auto expected =
            i % 2 ? std::to_string(t * 1000 + i) : "PUT /hello " + std::get<std::string>(request.body);
        const auto answer = client.send(request);
        if (answer && answer->body == expected) ++right;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 400);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // memory is not what it would be
#else
constexpr bool kSanitized = false;
#endif

std::size_t kilobytes(const std::string& what) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(what + ":")) return std::stoul(line.substr(what.size() + 1));
  return 0;
}

TEST(HttpServer, UploadsInConstantMemory) {
  if (kSanitized) GTEST_SKIP();
  TestServer server;
  Client client({.port = server.port()});
  const std::string block(1 << 20, 'x');
  ClientRequest request{.method = Method::put, .target = "/count"};
  std::size_t blocks = 1;
  request.body = StreamBody([&](BodyWriter& writer) {
    for (std::size_t i = 0; i < blocks; ++i) (void)writer.write(block);
  });
  ASSERT_TRUE(client.send(request).ok());
  std::ofstream("/proc/self/clear_refs") << "5";
  const auto before = kilobytes("VmHWM");
  blocks = 64;
  EXPECT_EQ(client.send(request)->body, std::to_string(64 << 20));
  EXPECT_LT(kilobytes("VmHWM"), before + 8 * 1024);
}

TEST(HttpServer, IdleConnectionsCostLittle) {
  if (kSanitized) GTEST_SKIP();
  TestServer server;
  const auto connect = [&](std::size_t count, std::vector<std::unique_ptr<Peer>>& into) {
    for (std::size_t i = 0; i < count; ++i) {
      into.push_back(std::make_unique<Peer>(server.port()));
      into.back()->send("GET /hello HTTP/1.1\r\nHost: a\r\nX: " + std::string(8000, 'x') + "\r\n\r\n");
      ASSERT_EQ(into.back()->answer().status, 200);
    }
  };
  std::vector<std::unique_ptr<Peer>> peers;
  connect(50, peers);
  const auto before = kilobytes("VmRSS");
  connect(400, peers);
  const auto grown = kilobytes("VmRSS") - before;
  EXPECT_LT(grown / 400, 12u) << "kilobytes a connection, the client's side included";
}

TEST(HttpServer, LogsRequests) {
  ::testing::internal::CaptureStderr();
  {
    TestServer server({}, true);
    Peer peer(server.port());
    peer.send("GET /hello?secret=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc\r\n\r\n");
    EXPECT_EQ(peer.answer().status, 200);
  }
  const auto log = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("GET /hello 200 20 "), std::string::npos) << log;
  EXPECT_NE(log.find("ms 127.0.0.1 abc"), std::string::npos) << log;
  EXPECT_EQ(log.find("secret"), std::string::npos) << log;
}

TEST(HttpServer, SaysWhyItCannotListen) {
  TestHandler handler;
  TestServer server;
  ServerOptions options;
  options.port = server.port();
  EXPECT_EQ(Server::listen(options, handler).error().code, Code::unavailable);
  options.host = "not an address";
  EXPECT_EQ(Server::listen(options, handler).error().code, Code::invalid_argument);
  options.host = "127.0.0.1";
  options.tls = TlsOptions{"/nonexistent", "/nonexistent"};
  EXPECT_EQ(Server::listen(options, handler).error().code, Code::failed_precondition);
}

}  // namespace
}  // namespace lathe::http
