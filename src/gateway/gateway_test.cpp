#include "gateway/gateway.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "gateway/openai.h"
#include "http/testing.h"

namespace lathe::gateway {
namespace {

using http::testing::Peer;
using http::testing::TestServer;

class GatewayTest : public testing::Test {
 protected:
  GatewayTest() : GatewayTest(options()) {}
  explicit GatewayTest(Options options)
      : gateway_(Gateway::create(options, hooks())), front_(front_options(*gateway_)) {
    gateway_->set_routes({service({upstream("a", back_.port())})});
  }

  static Options options() {
    Options options;
    options.first_byte_timeout = std::chrono::milliseconds{600};
    return options;
  }
  static Hooks hooks() {
    return {
        .authenticate = [](const http::Request& r) -> Result<http::Identity> {
          const auto token = r.headers.get("authorization");
          if (token.empty()) return http::Identity{};
          return http::Identity{std::string(token), "u", false};
        },
        .may_call = [](const http::Identity& who, const ServiceRoute& s) { return who.user_id == s.owner; }};
  }
  static http::ServerOptions front_options(Gateway& gateway) {
    http::ServerOptions options;
    options.io_handler = &gateway.io_handler();
    return options;
  }
  static Upstream upstream(std::string id, std::uint16_t port) { return {std::move(id), "127.0.0.1", port}; }
  static ServiceRoute service(std::vector<Upstream> upstreams, std::string path = "") {
    return {
        .id = "s",
        .name = "llm",
        .owner = "2",
        .versions = {{.id = "v", .rate = 100, .path = std::move(path), .upstreams = std::move(upstreams)}},
        .unavailable = {"没有就绪的实例", "no replica is ready"}};
  }
  http::testing::Answer send(const std::string& line, const std::string& rest = "\r\n",
                             bool to_head = false) {
    Peer peer(front_.port());
    peer.send(line + " HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\n" + rest);
    return peer.answer(to_head);
  }

  template <class Condition>
  static void until(Condition condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(condition());
  }

  TestServer back_;
  std::unique_ptr<Gateway> gateway_;
  TestServer front_;
};

TEST_F(GatewayTest, PassesRequestsOnBelowTheServicesName) {
  EXPECT_EQ(send("GET /serve/llm/hello?x=1").body, "GET /hello x=1 ");
  EXPECT_EQ(send("GET /serve/llm").body, "GET / ");
  EXPECT_EQ(send("PUT /serve/llm/a%20b", "Content-Length: 2\r\n\r\nok").body, "PUT /a b ok");
  EXPECT_EQ(send("POST /serve/llm/a", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").body,
            "POST /a ok");
  EXPECT_EQ(send("HEAD /serve/llm/hello", "\r\n", true).status, 200);
  EXPECT_EQ(gateway_->load().upstreams.at(0).requests, 5u);
  // The last answer may be here before its exchange is put away.
  for (int i = 0; i < 500 && gateway_->load().upstreams.at(0).in_flight != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(gateway_->load().upstreams.at(0).in_flight, 0u);
}

TEST_F(GatewayTest, KeepsTheClientsConnectionAndItsOrder) {
  Peer peer(front_.port());
  std::string all;
  for (int i = 0; i < 20; ++i)
    all += "POST /serve/llm/" + std::to_string(i) +
           " HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\nContent-Length: 2\r\n\r\nok";
  peer.send(all);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(peer.answer().body, "POST /" + std::to_string(i) + " ok");
}

TEST_F(GatewayTest, RelaysStreams) {
  const auto answer = send("GET /serve/llm/stream");
  EXPECT_EQ(answer.headers.get("transfer-encoding"), "chunked");
  EXPECT_EQ(answer.body, "one two three ");
}

TEST_F(GatewayTest, PrefixesTheVersionsPath) {
  gateway_->set_routes({service({upstream("a", back_.port())}, "/base/")});
  EXPECT_EQ(send("GET /serve/llm/x").body, "GET /base/x ");
}

TEST_F(GatewayTest, RoutesByModel) {
  EXPECT_EQ(send("POST /v1/completions", "Content-Length: 15\r\n\r\n{\"model\":\"llm\"}").body,
            "POST /v1/completions {\"model\":\"llm\"}");
  const auto unknown = send("POST /v1/completions", "Content-Length: 13\r\n\r\n{\"model\":\"x\"}");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_NE(unknown.body.find("model_not_found"), std::string::npos) << unknown.body;
  EXPECT_EQ(send("POST /v1/completions", "Content-Length: 2\r\n\r\n{}").status, 400);
  EXPECT_NE(send("GET /v1/models").body.find("\"id\":\"llm\""), std::string::npos);
}

TEST_F(GatewayTest, AsksWhoIsCalling) {
  Peer nobody(front_.port());
  nobody.send("GET /serve/llm/x HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(nobody.answer().status, 401);
  Peer stranger(front_.port());
  stranger.send("GET /serve/llm/x HTTP/1.1\r\nHost: h\r\nAuthorization: 3\r\n\r\n");
  EXPECT_EQ(stranger.answer().status, 404) << "somebody else's service is not even there";
}

TEST_F(GatewayTest, SaysWhenNothingIsReady) {
  gateway_->set_routes({service({})});
  const auto answer = send("GET /serve/llm/x");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get("retry-after"), "1");
  EXPECT_EQ(send("GET /serve/other/x").status, 404);
}

TEST_F(GatewayTest, HoldsRequestsUntilAReplicaIsReady) {
  std::atomic<int> waiting{0};
  gateway_->listen({.waiting = [&](const std::string& id) { waiting += id == "s"; }, .drained = {}});
  auto sleeping = service({});
  sleeping.hold = {
      .max_queued = 2, .max_wait = std::chrono::seconds{8}, .retry_after = std::chrono::seconds{7}};
  gateway_->set_routes({sleeping});
  const std::string request =
      "POST /serve/llm/x HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\nContent-Length: 2\r\n\r\nok";
  Peer first(front_.port()), second(front_.port());
  first.send(request);
  second.send(request);
  until([&] { return gateway_->load().services.at(0).queued == 2; });
  EXPECT_EQ(waiting, 2);
  Peer third(front_.port());
  third.send(request);
  const auto refused = third.answer();
  EXPECT_EQ(refused.status, 503) << "beyond the bound";
  EXPECT_EQ(refused.headers.get("retry-after"), "7");
  gateway_->set_route(service({upstream("a", back_.port())}));
  EXPECT_EQ(first.answer().body, "POST /x ok");
  EXPECT_EQ(second.answer().body, "POST /x ok");
  const auto counts = gateway_->load().services.at(0);
  EXPECT_EQ(counts.queued, 0u);
  EXPECT_EQ(counts.queued_total, 2u);
  EXPECT_EQ(counts.refused_total, 1u);
  EXPECT_GT(counts.queued_seconds, 0);
}

TEST_F(GatewayTest, HoldsNoLongerThanItsRouteSays) {
  auto sleeping = service({});
  sleeping.hold = {
      .max_queued = 2, .max_wait = std::chrono::milliseconds{30}, .retry_after = std::chrono::seconds{3}};
  gateway_->set_routes({sleeping});
  EXPECT_EQ(send("GET /serve/llm/x").status, 503);
  sleeping.hold.max_wait = std::chrono::seconds{30};
  gateway_->set_routes({sleeping});
  {
    Peer impatient(front_.port());
    impatient.send("GET /serve/llm/x HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\n\r\n");
    until([&] { return gateway_->load().services.at(0).queued == 1; });
  }
  until([&] { return gateway_->load().services.at(0).queued == 0; });
  Peer peer(front_.port());
  peer.send("GET /serve/llm/x HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\n\r\n");
  until([&] { return gateway_->load().services.at(0).queued == 1; });
  gateway_->set_routes({});
  EXPECT_EQ(peer.answer().status, 404) << "the service was deleted";
}

TEST_F(GatewayTest, AnUpstreamTakenOutEndsItsRequestsFirst) {
  std::atomic<int> drained{0};
  gateway_->listen({.waiting = {}, .drained = [&](const std::string& id) { drained += id == "a"; }});
  Peer peer(front_.port());
  peer.send("GET /serve/llm/wait HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\n\r\n");
  back_.handler().await_waiting(1);
  gateway_->set_routes({service({upstream("b", back_.port())})});
  EXPECT_EQ(gateway_->activity("a").in_flight, 1u);
  EXPECT_EQ(drained, 0);
  back_.handler().release();
  EXPECT_EQ(peer.answer().status, 200);
  until([&] { return drained == 1; });
  EXPECT_EQ(gateway_->activity("a").in_flight, 0u);
  const auto load = gateway_->load();
  EXPECT_EQ(load.upstreams.size(), 1u);
  EXPECT_EQ(load.versions.at(0).requests, 1u) << "a version remembers what its replicas did";
  EXPECT_EQ(load.versions.at(0).duration.total(), 1u);
  EXPECT_GT(load.versions.at(0).concurrency_seconds, 0);
  gateway_->set_routes({});
  EXPECT_EQ(drained, 1) << "b was not a";
}

TEST_F(GatewayTest, TriesAnotherReplicaWhereNothingWasSent) {
  std::uint16_t closed;
  {
    TestServer gone;
    closed = gone.port();
  }
  gateway_->set_routes({service({upstream("dead", closed), upstream("a", back_.port())})});
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(send("POST /serve/llm/x", "Content-Length: 2\r\n\r\nok").body, "POST /x ok");
}

/// A socket that listens at a port of the kernel's choice, which `address` then tells.
int listen_on_loopback(int backlog, sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(fd, backlog), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return fd;
}

/// Reads a request, does as told, and closes the connection.
class OddUpstream {
 public:
  explicit OddUpstream(std::function<void(int)> answer = [](int) {}) {
    sockaddr_in address{};
    fd_ = listen_on_loopback(64, address);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, answer = std::move(answer)] {
      for (int one = 0; (one = ::accept(fd_, nullptr, nullptr)) >= 0; ::close(one)) {
        char dropped[4096];
        if (::recv(one, dropped, sizeof dropped, 0) <= 0) continue;
        ++requests;
        answer(one);
      }
    });
  }
  ~OddUpstream() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  std::uint16_t port() const { return port_; }
  std::atomic<int> requests{0};

 private:
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

TEST_F(GatewayTest, WhatMayBeRepeatedOutlivesItsReplica) {
  OddUpstream dying;
  gateway_->set_routes({service({upstream("dying", dying.port()), upstream("a", back_.port())})});
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(send("GET /serve/llm/hello").status, 200);
    EXPECT_EQ(send("PUT /serve/llm/x", "Content-Length: 2\r\n\r\nok").body, "PUT /x ok");
  }
  EXPECT_GT(dying.requests, 0);
  const int before = dying.requests;
  int refused = 0;
  for (int i = 0; i < 10; ++i)
    refused += send("POST /serve/llm/x", "Content-Length: 2\r\n\r\nok").status == 503;
  EXPECT_EQ(refused, dying.requests - before) << "what may have been done is not done again";
}

TEST_F(GatewayTest, ASilentReplicaIsGivenUp) {
  EXPECT_EQ(send("GET /serve/llm/wait").status, 504);
  back_.handler().release();
}

class GatewayLimits : public GatewayTest {
 protected:
  GatewayLimits()
      : GatewayTest({.connect_timeout = std::chrono::milliseconds{200},
                     .first_byte_timeout = std::chrono::seconds{8},
                     .idle_timeout = std::chrono::milliseconds{400},
                     .total_timeout = std::chrono::milliseconds{900},
                     .max_model_body = 20}) {}
  static void say(int socket, std::string_view text) {
    [[maybe_unused]] const auto sent = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL);
  }
  static void await_close(int socket) {
    char byte = 0;
    while (::recv(socket, &byte, 1, 0) > 0) {
    }
  }
};

TEST_F(GatewayLimits, WhoCannotBeConnectedToInTimeIsGivenUp) {
  sockaddr_in address{};
  const int full = listen_on_loopback(0, address);
  // Its queue has room for one that is not accepted; the kernel leaves the next without an answer.
  const int first = ::socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(::connect(first, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  gateway_->set_routes({service({upstream("full", ntohs(address.sin_port))})});
  const auto answer = send("GET /serve/llm/x", "Accept-Language: en\r\n\r\n");
  EXPECT_EQ(answer.status, 503);
  EXPECT_NE(answer.body.find("cannot be reached"), std::string::npos) << answer.body;
  ::close(first);
  ::close(full);
}

TEST_F(GatewayLimits, AnAnswerThatPausesForTooLongIsCutOff) {
  OddUpstream pausing([](int socket) {
    say(socket, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    await_close(socket);
  });
  gateway_->set_routes({service({upstream("a", pausing.port())})});
  EXPECT_EQ(send("GET /serve/llm/x").status, 0);
  EXPECT_EQ(pausing.requests, 1) << "its answer had begun";
}

TEST_F(GatewayLimits, AnAnswerThatTakesTooLongInAllIsCutOffUnlessItIsAStream) {
  OddUpstream slow([](int socket) {
    say(socket, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n");
    for (int i = 0; i < 12; ++i, std::this_thread::sleep_for(std::chrono::milliseconds{150}))
      say(socket, "x");
  });
  gateway_->set_routes({service({upstream("a", slow.port())})});
  EXPECT_EQ(send("GET /serve/llm/x").status, 0);
  OddUpstream streaming([](int socket) {
    say(socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 12; ++i, std::this_thread::sleep_for(std::chrono::milliseconds{150}))
      say(socket, "1\r\nx\r\n");
    say(socket, "0\r\n\r\n");
  });
  gateway_->set_routes({service({upstream("b", streaming.port())})});
  EXPECT_EQ(send("GET /serve/llm/x").body, "xxxxxxxxxxxx");
}

TEST_F(GatewayLimits, AModelsRequestIsHeldInMemoryAndBounded) {
  EXPECT_EQ(send("POST /v1/completions", "Content-Length: 15\r\n\r\n{\"model\":\"llm\"}").status, 200);
  EXPECT_EQ(send("POST /v1/completions", "Content-Length: 21\r\n\r\n{\"model\":\"llm\"}      ").status, 413);
}

TEST_F(GatewayTest, TheUpstreamIsToldThatTheClientHasLeft) {
  {
    Peer peer(front_.port());
    peer.send("GET /serve/llm/follow HTTP/1.1\r\nHost: h\r\nAuthorization: 2\r\n\r\n");
    for (int i = 0; i < 500 && gateway_->load().upstreams.at(0).bytes_out == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (int i = 0; i < 500 && back_.handler().followers_ended == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(back_.handler().followers_ended, 1);
  EXPECT_EQ(gateway_->load().upstreams.at(0).in_flight, 0u);
}

TEST(OpenAi, FindsTheModel) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"model":"a"})", "a"},
      {R"( { "messages" : [{"model":"x","content":"\"model\":\"y\""}], "model" : "b\u0041" })", "bA"},
      {R"({"prompt":"\\","model":"c"})", "c"},
      {R"({"model":7})", ""},
      {R"({"inner":{"model":"x"}})", ""},
      {R"(["model","x"])", ""},
      {R"({"model":"unended)", ""},
      {"", ""},
  };
  for (const auto& [json, model] : kCases) EXPECT_EQ(find_model(json).value_or(""), model) << json;
}

}  // namespace
}  // namespace lathe::gateway
