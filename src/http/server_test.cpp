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

}  // namespace
}  // namespace lathe::http
