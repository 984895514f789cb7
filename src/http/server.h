#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "http/message.h"

namespace lathe::http {

struct Limits {
  std::size_t max_header_bytes = 32 * 1024;  ///< request line and headers together; more is 431
  std::size_t max_headers = 100;
  std::size_t max_connections = 20000;
  std::size_t max_workers = 256;  ///< threads that run handlers, made when needed
  std::size_t max_queued = 4096;  ///< requests waiting for a worker; beyond it 503 with Retry-After
  std::chrono::milliseconds header_timeout{
      15'000};  ///< from the first byte of a request to the last of its head
  std::chrono::milliseconds idle_timeout{75'000};   ///< between requests
  std::chrono::milliseconds body_timeout{60'000};   ///< without a byte of the body
  std::chrono::milliseconds write_timeout{60'000};  ///< without a byte of the answer taken
};

struct TlsOptions {
  std::string certificate_file;  ///< PEM chain
  std::string key_file;          ///< PEM key
};

/// Takes chosen requests on the I/O threads, without a worker: see http/connection.h.
class IoHandler;

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8080;  ///< 0: any free one, see Server::port
  std::size_t io_threads = 1;
  Limits limits;
  std::optional<TlsOptions> tls;
  bool access_log = true;
  IoHandler* io_handler = nullptr;  ///< must outlive the server
};

/// An HTTP/1.1 server (RFC 9110, 9112). Requests' heads are read on I/O threads, handlers run on workers.
/// What cannot be framed beyond doubt is refused and its connection closed. X-Forwarded-* is not trusted.
class Server {
 public:
  /// Binds and listens; nothing is accepted before start. `handler` must outlive the server.
  static Result<std::unique_ptr<Server>> listen(const ServerOptions& options, Handler& handler);
  /// Cuts what is still open and waits for the handlers that run.
  virtual ~Server() = default;
  virtual std::uint16_t port() const = 0;
  virtual void start() = 0;
  /// Stops accepting, closes idle connections, tells followers to end (BodyWriter::gone), lets requests under
  /// way finish for at most `patience`, then cuts them off. Blocks. The server cannot be started again.
  virtual void drain(std::chrono::milliseconds patience) = 0;

  struct Counters {
    std::uint64_t connections_open, connections_total, requests_total, bytes_in, bytes_out, refused_total;
    std::uint64_t workers, queued;
  };
  virtual Counters counters() const = 0;
};

}  // namespace lathe::http
