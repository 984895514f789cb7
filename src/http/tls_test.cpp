#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "http/testing.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;
using testing::Peer;
using testing::TestHandler;
using testing::TestServer;

/// A folder with a fresh key and a certificate that it signed itself.
class Certificate {
 public:
  Certificate() {
    char name[] = "/tmp/lathe-tls-XXXXXX";
    folder_ = ::mkdtemp(name);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    X509_sign(certificate, key, EVP_sha256());
    FILE* file = std::fopen((folder_ / "key.pem").c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    file = std::fopen((folder_ / "certificate.pem").c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  ~Certificate() { std::filesystem::remove_all(folder_); }

  ServerOptions options() const {
    ServerOptions out;
    out.tls = TlsOptions{folder_ / "certificate.pem", folder_ / "key.pem"};
    return out;
  }
  std::string file() const { return folder_ / "certificate.pem"; }

 private:
  std::filesystem::path folder_;
};

/// A blocking TLS client that trusts that one certificate.
class TlsPeer {
 public:
  TlsPeer(std::uint16_t port, const Certificate& trusted, int max_version = TLS1_3_VERSION) : raw_(port) {
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context_, max_version);
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_cipher_list(context_, "DEFAULT:@SECLEVEL=0");
    SSL_CTX_load_verify_locations(context_, trusted.file().c_str(), nullptr);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    ssl_ = SSL_new(context_);
    SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>("\x02h2\x08http/1.1"), 12);
    SSL_set_fd(ssl_, raw_.fd());
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsPeer() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsPeer(const TlsPeer&) = delete;
  TlsPeer& operator=(const TlsPeer&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
  }
  /// Reads until the text ends in `end`, or the connection does.
  std::string until(std::string_view end) {
    std::string out;
    std::array<char, 16384> buffer;
    while (!out.ends_with(end)) {
      const int got = SSL_read(ssl_, buffer.data(), static_cast<int>(buffer.size()));
      if (got <= 0) return out + "(closed)";
      out.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return out;
  }
  std::string protocol() const {
    const unsigned char* name = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_, &name, &size);
    return {reinterpret_cast<const char*>(name), size};
  }

 private:
  Peer raw_;
  SSL_CTX* context_;
  SSL* ssl_;
  bool connected_ = false;
};

TEST(HttpTls, ServesEverythingAsWithoutIt) {
  const Certificate certificate;
  TestServer server(certificate.options());
  TlsPeer peer(server.port(), certificate);
  ASSERT_TRUE(peer.connected());
  EXPECT_EQ(peer.protocol(), "http/1.1");
  peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(peer.until("GET /hello ").starts_with("HTTP/1.1 200 OK\r\n"));
  const std::string block(1 << 20, 'x');
  peer.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n");
  for (int i = 0; i < 4; ++i) peer.send(block);
  EXPECT_TRUE(peer.until("\r\n\r\n4194304").starts_with("HTTP/1.1 200 OK\r\n"));
  peer.send("PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
  EXPECT_TRUE(peer.until("\r\n\r\n5").starts_with("HTTP/1.1 200 OK\r\n"));
  peer.send("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwhole");
  EXPECT_TRUE(peer.until("POST /hello whole").starts_with("HTTP/1.1 200 OK\r\n"));
  peer.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(
      peer.until("0\r\n\r\n").ends_with("\r\n\r\n4\r\none \r\n4\r\ntwo \r\n6\r\nthree \r\n0\r\n\r\n"));
  const auto content = TestHandler::file_content().substr(10, 250'000);
  peer.send("GET /file?offset=10&length=250000 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(peer.until(content).ends_with("\r\n\r\n" + content));
  peer.send("GET /big?length=5000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(peer.until("(closed)").ends_with(std::string(5'000'000, 'b') + "(closed)"));
  EXPECT_EQ(server->counters().connections_total, 1u);
}

TEST(HttpTls, RefusesOldVersionsAndPlainText) {
  const Certificate certificate;
  TestServer server(certificate.options());
  EXPECT_TRUE(TlsPeer(server.port(), certificate, TLS1_2_VERSION).connected());
  EXPECT_FALSE(TlsPeer(server.port(), certificate, TLS1_1_VERSION).connected());
  Peer plain(server.port());
  plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(plain.answer().status, 0);
}

TEST(HttpTls, TimesOutOnWorkersToo) {
  const Certificate certificate;
  auto options = certificate.options();
  options.limits.header_timeout = options.limits.idle_timeout = options.limits.body_timeout = 50ms;
  TestServer server(options);
  Peer silent(server.port());
  EXPECT_TRUE(silent.closed());
  TlsPeer peer(server.port(), certificate);
  ASSERT_TRUE(peer.connected());
  peer.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
  const auto answer = peer.until("(closed)");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 504 ")) << answer;
}

TEST(HttpTls, NoticesClientsThatLeaveAndDrains) {
  const Certificate certificate;
  TestServer server(certificate.options());
  {
    TlsPeer peer(server.port(), certificate);
    peer.send("GET /follow HTTP/1.1\r\nHost: a\r\n\r\n");
    TlsPeer half(server.port(), certificate);
    half.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    while (server->counters().requests_total < 2 || server.handler().followers_begun < 1)
      std::this_thread::sleep_for(1ms);
  }
  while (server->counters().connections_open > 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(server.handler().followers_ended, 1);
  TlsPeer idle(server.port(), certificate);
  ASSERT_TRUE(idle.connected());
  server->drain(5s);
  EXPECT_EQ(idle.until("never"), "(closed)");
  EXPECT_EQ(server->counters().connections_open, 0u);
}

}  // namespace
}  // namespace lathe::http
