#include "http/connection.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "http/testing.h"

namespace lathe::http {
namespace {

using testing::Peer;
using testing::TestServer;

/// Sends /io/echo's body back, chunk by chunk, as it arrives.
class EchoHandler final : public IoHandler {
 public:
  bool wants(const Request& head) override { return head.path.starts_with("/io/"); }

  Task<> serve(Connection& connection, const Request& head) override {
    if (head.path == "/io/throw") throw std::runtime_error("serve");
    const std::string top = fmt::format(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Method: {}\r\n\r\n", head.method_text);
    std::array<char, 1000> buffer;
    bool begun = false;
    for (;;) {
      const auto got = co_await connection.read_body(buffer);
      if (!got) co_return connection.finish(0, false);
      if (!begun) {
        begun = true;
        const bool sent = co_await connection.write(top);
        if (!sent) co_return;
      }
      if (*got == 0) break;
      const std::string chunk = fmt::format("{:x}\r\n{}\r\n", *got, std::string_view(buffer.data(), *got));
      const bool sent = co_await connection.write(chunk);
      if (!sent) co_return;
    }
    const bool sent = co_await connection.write("0\r\n", "\r\n");
    connection.finish(200, sent);
  }
};

TEST(HttpConnection, IsServedOnItsIoThreadWithoutWorkers) {
  EchoHandler echo;
  ServerOptions options;
  options.io_handler = &echo;
  TestServer server(options);
  Peer peer(server.port());
  const std::string block(30'000, 'x');
  peer.send("PUT /io/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n" + block);
  const auto answer = peer.answer();
  EXPECT_EQ(answer.headers.get("X-Method"), "PUT");
  EXPECT_EQ(answer.body, block);
  peer.send(
      "PURGE /io/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(peer.answer().status, 100);
  // While it arrives: the first piece comes back before the second is sent.
  peer.send("3\r\nabc\r\n");
  peer.send("2\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "abcde");
  EXPECT_EQ(server->counters().workers, 0u);
  peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(peer.answer().body, "GET /hello ");
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpConnection, EndsWhenItsHandlerFails) {
  EchoHandler echo;
  ServerOptions options;
  options.io_handler = &echo;
  TestServer server(options);
  Peer thrown(server.port());
  thrown.send("GET /io/throw HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(thrown.answer().status, 0);
  Peer broken(server.port());
  broken.send("GET /io/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense");
  EXPECT_EQ(broken.answer().status, 0);
}

}  // namespace
}  // namespace lathe::http
