#include "http/client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "http/testing.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;
using testing::TestHandler;
using testing::TestServer;

Client client_of(const TestServer& server) {
  return Client({.host = "127.0.0.1", .port = server.port()}, {.connect_timeout = 5s, .timeout = 10s});
}

ClientRequest get(std::string target) {
  ClientRequest out;
  out.target = std::move(target);
  return out;
}

TEST(HttpClient, ReusesItsConnection) {
  TestServer server;
  auto client = client_of(server);
  for (int i = 0; i < 5; ++i) {
    const auto answer = client.send(get("/hello?a=" + std::to_string(i)));
    ASSERT_TRUE(answer.ok()) << answer.error().describe(Language::en);
    EXPECT_EQ(answer->body, "GET /hello a=" + std::to_string(i) + " ");
  }
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpClient, DoesNotLetAServerWaitForABodyThatBrokeOff) {
  TestServer server;
  auto client = client_of(server);
  ClientRequest request{.method = Method::put, .target = "/count"};
  request.headers.set("Content-Length", "1000");
  request.body = StreamBody([](BodyWriter& writer) { (void)writer.write("a little").ok(); });
  const auto begin = std::chrono::steady_clock::now();
  const auto answer = client.send(request);
  EXPECT_TRUE(!answer.ok() || answer->status >= 400);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(HttpClient, SendsBodiesOfEveryKind) {
  TestServer server;
  auto client = client_of(server);
  const std::string content = TestHandler::file_content();
  ClientRequest request{.method = Method::put, .target = "/count"};
  request.body = content;
  EXPECT_EQ(client.send(request)->body, std::to_string(content.size()));
  request.body = FileBody{testing::temporary_file(content), 7, content.size() - 7};
  EXPECT_EQ(client.send(request)->body, std::to_string(content.size() - 7));
  request.body = StreamBody([&](BodyWriter& writer) {
    for (int i = 0; i < 3; ++i) (void)writer.write(content);
  });
  EXPECT_EQ(client.send(request)->body, std::to_string(content.size() * 3));
  request.headers.add("Content-Length", std::to_string(content.size() * 3));
  EXPECT_EQ(client.send(request)->body, std::to_string(content.size() * 3));
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpClient, ReceivesBodiesOfEveryKind) {
  TestServer server;
  auto client = client_of(server);
  EXPECT_EQ(client.send(get("/stream"))->body, "one two three ");
  EXPECT_EQ(client.send(get("/file?offset=5&length=200000"))->body,
            TestHandler::file_content().substr(5, 200000));
  EXPECT_EQ(client.send(get("/empty?status=204"))->body, "");
  auto head = get("/big?length=1000");
  head.method = Method::head;
  const auto answer = client.send(head);
  EXPECT_EQ(answer->body, "");
  EXPECT_EQ(answer->headers.get("content-length"), "1000");
  EXPECT_EQ(client.send(get("/big?length=3000000"))->body.size(), 3'000'000u);
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpClient, HandsPiecesOverAndStopsWhenTold) {
  TestServer server;
  auto client = client_of(server);
  std::size_t seen = 0;
  const auto answer = client.send(get("/big?length=3000000"),
                                  [&](const ClientResponse& head, std::string_view piece) -> Result<void> {
                                    EXPECT_EQ(head.status, 200);
                                    seen += piece.size();
                                    if (seen > 100'000) return Error{Code::storage_exhausted, {"满", "full"}};
                                    return {};
                                  });
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::storage_exhausted);
  EXPECT_EQ(client.send(get("/next"))->body, "GET /next ");
}

TEST(HttpClient, LimitsWhatItCollects) {
  TestServer server;
  Client client({.port = server.port()}, {.max_body = 1000});
  EXPECT_EQ(client.send(get("/big?length=1000"))->body.size(), 1000u);
  const auto answer = client.send(get("/big?length=1001"));
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::too_large);
}

TEST(HttpClient, SeesARefusalOfABodyItIsStillSending) {
  TestServer server;
  auto client = client_of(server);
  ClientRequest request{.method = Method::post, .target = "/hello"};
  request.body = std::string(8 << 20, 'x');
  const auto answer = client.send(request);
  ASSERT_TRUE(answer.ok()) << answer.error().describe(Language::en);
  EXPECT_EQ(answer->status, 413);
  EXPECT_EQ(client.send(get("/next"))->body, "GET /next ");
}

TEST(HttpClient, RepeatsOnAConnectionThatWasClosedMeanwhile) {
  ServerOptions options;
  options.limits.idle_timeout = 20ms;
  TestServer server(options);
  auto client = client_of(server);
  ASSERT_TRUE(client.send(get("/a")).ok());
  while (server->counters().connections_open > 0) std::this_thread::yield();
  EXPECT_EQ(client.send(get("/b"))->body, "GET /b ");
  EXPECT_EQ(server->counters().connections_total, 2u);
}

TEST(HttpClient, TellsWhatFailed) {
  std::uint16_t port = 0;
  {
    TestServer server;
    port = server.port();
    auto client = client_of(server);
    EXPECT_EQ(client.send(get("/broken-stream")).error().code, Code::cancelled);
    Client impatient({.port = port}, {.timeout = 30ms});
    EXPECT_EQ(impatient.send(get("/wait")).error().code, Code::deadline_exceeded);
    server.handler().release();
  }
  Client client({.port = port});
  EXPECT_EQ(client.send(get("/a")).error().code, Code::unavailable);
  Client nowhere({.host = "no.such.host.invalid", .port = 80});
  EXPECT_EQ(nowhere.send(get("/a")).error().code, Code::unavailable);
}

/// Answers one connection with fixed bytes, whatever is asked.
std::string serve_once(int listener, std::string_view bytes) {
  const int fd = ::accept(listener, nullptr, nullptr);
  std::string asked(4096, '\0');
  asked.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::recv(fd, asked.data(), asked.size(), 0))));
  (void)!::write(fd, bytes.data(), bytes.size());
  ::close(fd);
  return asked;
}

TEST(HttpClient, SpeaksOverUnixSocketsAndReadsStrictly) {
  char folder[] = "/tmp/lathe-client-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/s";
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  const std::vector<std::pair<std::string, std::string>> answers{
      {"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"},
      {"HTTP/1.0 200\r\nContent-Length: 2\r\n\r\nok", "ok"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
       "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
       "ok"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "(invalid_argument)"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", "(invalid_argument)"},
      {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "(invalid_argument)"},
      {"SSH-2.0-OpenSSH_9.2\r\n", "(invalid_argument)"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "(cancelled)"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "(invalid_argument)"},
      {"", "(cancelled)"},
  };
  for (const auto& [bytes, expected] : answers) {
    std::string asked;
    std::thread server([&, &text = bytes] { asked = serve_once(listener, text); });
    Client client({.unix_path = path}, {.timeout = 10s});
    const auto answer = client.send(get("/v1/info"));
    server.join();
    EXPECT_EQ(answer ? answer->body : "(" + std::string(name(answer.error().code)) + ")", expected) << bytes;
    EXPECT_EQ(asked, "GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  ::close(listener);
  ::unlink(path.c_str());
  ::rmdir(folder);
}

TEST(HttpClient, ReadsAddresses) {
  EXPECT_EQ(Address::parse("http://example:8080/")->port, 8080);
  EXPECT_EQ(Address::parse("example")->port, 80);
  EXPECT_EQ(Address::parse("[::1]:81")->host, "::1");
  EXPECT_EQ(Address::parse("[::1]:81")->port, 81);
  for (const auto* wrong : {"", "http://", "a:", "a:0", "a:70000", "a:1x", "a/b", "https://a", "[::1", "a@b"})
    EXPECT_FALSE(Address::parse(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace lathe::http
