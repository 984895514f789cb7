#include "http/server.h"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "http/client.h"
#include "http/testing.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;
using testing::Peer;
using testing::TestHandler;
using testing::TestServer;

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  TestServer server;
  Peer peer(server.port());
  for (int i = 0; i < 3; ++i) {
    peer.send("GET /hello?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    const auto answer = peer.answer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "GET /hello x=1 ");
    EXPECT_EQ(answer.headers.get("Server"), "lathe");
    EXPECT_EQ(answer.headers.get("X-Request-Id").size(), 16u);
    EXPECT_EQ(answer.headers.get("Date").size(), 29u);
  }
  EXPECT_EQ(server->counters().requests_total, 3u);
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  Peer peer(server.port());
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
  peer.send(all);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(peer.answer().body, "POST /" + std::to_string(i) + " ok");
}

TEST(HttpServer, ReadsWholeBodiesInBothFramings) {
  TestServer server;
  Peer peer(server.port());
  peer.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(peer.answer().body, "POST /a hello");
  peer.send(
      "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
      "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "POST /a abcde");
  EXPECT_EQ(peer.answer().body, "GET /next ");
}

TEST(HttpServer, StreamsBodiesToTheHandler) {
  TestServer server;
  Peer peer(server.port());
  const std::string block(1 << 20, 'x');
  peer.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(8 * block.size()) +
            "\r\n\r\n");
  for (int i = 0; i < 8; ++i) peer.send(block);
  EXPECT_EQ(peer.answer().body, std::to_string(8 * block.size()));
  peer.send("PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 8; ++i) peer.send("100000\r\n" + block + "\r\n");
  peer.send("0\r\nX-Trailer: 1\r\n\r\n");
  EXPECT_EQ(peer.answer().body, std::to_string(8 * block.size()));
}

TEST(HttpServer, StreamsAnswers) {
  TestServer server;
  Peer peer(server.port());
  peer.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto answer = peer.answer();
  EXPECT_EQ(answer.headers.get("Transfer-Encoding"), "chunked");
  EXPECT_EQ(answer.body, "one two three ");
  peer.send("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "one two three ");
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, SendsFilesAndRanges) {
  TestServer server;
  Peer peer(server.port());
  peer.send("GET /file?offset=3&length=70000 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().body, TestHandler::file_content().substr(3, 70000));
  peer.send(
      "HEAD /file?offset=3&length=70000 HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto head = peer.answer(true);
  EXPECT_EQ(head.headers.get("Content-Length"), "70000");
  EXPECT_EQ(peer.answer().body, "GET /after ");
}

TEST(HttpServer, SurvivesExceptions) {
  TestServer server;
  Peer peer(server.port());
  for (const auto* path : {"/throw", "/throw-intake"}) {
    peer.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(peer.answer().status, 500);
  }
  peer.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().status, 200);
}

TEST(HttpServer, TellsTheHandlerWhoAsks) {
  TestServer server;
  Peer peer(server.port());
  peer.send(
      "GET /about HTTP/1.1\r\nHost: a\r\nX-Request-Id: my-id.7\r\nAccept-Language: en\r\n"
      "X-Forwarded-For: 1.2.3.4\r\n\r\n");
  const auto answer = peer.answer();
  EXPECT_EQ(answer.body, "127.0.0.1 my-id.7 en");
  EXPECT_EQ(answer.headers.get("X-Request-Id"), "my-id.7");
  for (const auto& wrong : {std::string("a b"), std::string("a\"b"), std::string(65, 'a')}) {
    peer.send("GET /about HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + wrong + "\r\n\r\n");
    const auto replaced = peer.answer();
    EXPECT_EQ(replaced.headers.get("X-Request-Id").size(), 16u);
    EXPECT_EQ(replaced.body, "127.0.0.1 " + std::string(replaced.headers.get("X-Request-Id")) + " zh");
  }
}

TEST(HttpServer, RefusesWhatItCannotFrameAndCloses) {
  TestServer server;
  const std::vector<std::pair<std::string, int>> wrong{
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
       "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
      {"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n", 431},
      {"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417},
  };
  for (const auto& [text, status] : wrong) {
    Peer peer(server.port());
    peer.send(text);
    const auto answer = peer.answer();
    EXPECT_EQ(answer.status, status) << text;
    EXPECT_EQ(answer.headers.get("Connection"), "close");
    EXPECT_TRUE(peer.closed()) << text;
  }
}

TEST(HttpServer, RefusesBodiesThatAreTooLarge) {
  TestServer server;
  const std::string block(100'000, 'x');
  for (const std::string path : {"/hello", "/small-stream"}) {
    Peer sized(server.port());
    sized.send("POST " + path + " HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    for (int i = 0; i < 20; ++i) sized.send(block);
    EXPECT_EQ(sized.answer().status, 413);
    EXPECT_TRUE(sized.closed());
    Peer chunked(server.port());
    chunked.send("POST " + path + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 20; ++i) chunked.send("186a0\r\n" + block + "\r\n");
    EXPECT_EQ(chunked.answer().status, 413) << path;
    EXPECT_TRUE(chunked.closed());
  }
}

TEST(HttpServer, RefusesWithoutReadingTheBody) {
  TestServer server;
  Peer peer(server.port());
  peer.send(
      "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: "
      "a\r\n\r\n");
  EXPECT_EQ(peer.answer().status, 401);
  EXPECT_EQ(peer.answer().body, "GET /next ");
  peer.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n");
  const auto answer = peer.answer();
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(answer.headers.get("Connection"), "close");
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, ContinuesOnlyOnceTheBodyIsWanted) {
  TestServer server;
  Peer peer(server.port());
  for (const auto& [path, body] : {std::pair{"/hello", "POST /hello hello"}, std::pair{"/count", "5"}}) {
    peer.send(std::string("POST ") + path +
              " HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(peer.answer().status, 100);
    peer.send("hello");
    EXPECT_EQ(peer.answer().body, body);
  }
  // A streaming handler that never asks for the body: nothing is invited, and the rest cannot be trusted.
  peer.send("POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  const auto answer = peer.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.get("Connection"), "close");
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, ClosesAfterABodyThatWasNotRead) {
  TestServer server;
  Peer peer(server.port());
  peer.send("PUT /half HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n" +
            std::string(1'000'000, 'x'));
  const auto answer = peer.answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.get("Connection"), "close");
}

TEST(HttpServer, OmitsBodiesWhereThereAreNone) {
  TestServer server;
  Peer peer(server.port());
  for (const auto* status : {"204", "304"}) {
    peer.send(std::string("GET /empty?status=") + status + " HTTP/1.1\r\nHost: a\r\n\r\n");
    const auto answer = peer.answer();
    EXPECT_EQ(std::to_string(answer.status), status);
    EXPECT_FALSE(answer.headers.has("Content-Length"));
  }
  peer.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\nHEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer(true).headers.get("Transfer-Encoding"), "chunked");
  EXPECT_EQ(peer.answer(true).headers.get("Content-Length"), "12");
  peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "GET /hello ");
}

TEST(HttpServer, CutsAnswersThatBreak) {
  TestServer server;
  for (const auto* path : {"/broken-stream", "/sized?length=15", "/sized?length=13"}) {
    Peer peer(server.port());
    peer.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(peer.answer().status, 0) << path;
    EXPECT_TRUE(peer.closed());
  }
  Peer peer(server.port());
  peer.send("GET /sized?length=14 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "one two three ");
  // Past the end of the file: it is shorter than was promised.
  peer.send("GET /file?offset=299990&length=100000 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().status, 0);
}

TEST(HttpServer, LetsNoValueBecomeAHeader) {
  TestServer server;
  Peer peer(server.port());
  peer.send("GET /inject HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto answer = peer.answer();
  EXPECT_EQ(answer.headers.get("X-Name"), "a  X-Evil: 1");
  EXPECT_FALSE(answer.headers.has("X-Evil"));
}

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
