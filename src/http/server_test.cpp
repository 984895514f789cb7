#include "http/server.h"

#include <gtest/gtest.h>

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

TEST(HttpServer, HasTheHandlerWordWhatIsMalformed) {
  TestServer server;
  struct Case {
    std::string sent;
    int status;
    std::string body;
  };
  for (const auto& [sent, status, body] : std::vector<Case>{
           {"GET /a?b HTTP/1.1\r\nAccept-Language: en\r\nX\r\n\r\n", 400,
            "/a: bad request: a header line without a colon"},
           {"GET /a?b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "/a: 请求无法识别：Host 多于一个"},
           {"nonsense\r\n\r\n", 400, "-: 请求无法识别：请求行不合法"},
           {"GET http:///x HTTP/1.1\r\nAccept-Language: en\r\nHost: a\r\n\r\n", 400,
            "/x: bad request: the target's authority and Host differ"},
           {"GET http://a HTTP/1.1\r\nAccept-Language: en\r\nHost: a\r\n\r\n", 400,
            "-: bad request: an absolute target without a path"},
           {"GET /a/../b?c HTTP/1.1\r\nHost: a\r\nAccept-Language: en\r\n\r\n", 400,
            "/a/../b: bad request target: a dot segment in the path"},
           {"GET /" + std::string(40'000, 'x'), 414, "-: 请求无法识别：请求行过长"},
           {"GET /y HTTP/1.1\r\nHost: a\r\nX: " + std::string(40'000, 'x'), 431,
            "/y: 请求无法识别：请求头过大"},
       }) {
    Peer peer(server.port());
    peer.send(sent);
    const auto answer = peer.answer();
    EXPECT_EQ(answer.status, status) << sent.substr(0, 60);
    EXPECT_EQ(answer.body, body);
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

}  // namespace
}  // namespace lathe::http
