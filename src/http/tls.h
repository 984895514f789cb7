#pragma once

#include <openssl/ssl.h>

#include <memory>

#include "base/result.h"
#include "http/channel.h"
#include "http/server.h"
#include "http/socket.h"

namespace lathe::http {

struct FreeTlsContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using TlsContext = std::unique_ptr<SSL_CTX, FreeTlsContext>;

/// A server's TLS settings: TLS 1.2 and newer, the given chain and key, HTTP/1.1 by ALPN, HTTP/2 where a
/// client offers nothing else.
Result<TlsContext> make_tls(const TlsOptions& options);

/// The server's side of TLS on a socket. Used by the loop's thread or, while the socket is lent, by a worker.
class TlsStream {
 public:
  TlsStream(Socket& socket, SSL_CTX& context);
  Task<bool> handshake();
  /// Bytes, or 0 for the end.
  Task<std::size_t> read(std::span<char> into);
  /// At least one byte, or 0 for a broken connection.
  Task<std::size_t> write_some(std::string_view bytes);
  /// Sends close_notify without waiting for the client's.
  void say_goodbye();
  bool speaks_http2() const;

 private:
  friend class TlsChannel;
  struct Free {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  enum class Next { go_on, read, write, end };
  Next next(int outcome);
  Task<bool> wait(Next next);

  Socket& socket_;
  std::unique_ptr<SSL, Free> ssl_;
};

/// The blocking view of a TLS stream.
class TlsChannel final : public Channel {
 public:
  TlsChannel(TlsStream& stream, SocketChannel::Timeouts timeouts) : stream_(stream), timeouts_(timeouts) {}
  Result<std::size_t> read(std::span<char> into) override;
  Result<void> write(std::span<const std::string_view> pieces, bool more) override;
  Result<void> write_file(int fd, std::uint64_t offset, std::uint64_t length) override;

 private:
  Result<bool> wait(int outcome);
  Result<void> write_all(std::string_view bytes);
  TlsStream& stream_;
  SocketChannel::Timeouts timeouts_;
};

}  // namespace lathe::http
