#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace lathe::http {

/// One byte stream used by blocking calls on one thread. Errors are `cancelled` (the other side is gone)
/// and `deadline_exceeded` (nothing moved for the timeout).
class Channel {
 public:
  virtual ~Channel() = default;
  /// At least one byte; 0 is the end.
  virtual Result<std::size_t> read(std::span<char> into) = 0;
  /// All of the pieces. `more`: others follow at once.
  virtual Result<void> write(std::span<const std::string_view> pieces, bool more) = 0;
  virtual Result<void> write_file(int fd, std::uint64_t offset, std::uint64_t length) = 0;
};

/// A TCP (or Unix) socket, whether it is in blocking mode or not. Does not own the descriptor.
class SocketChannel final : public Channel {
 public:
  struct Timeouts {
    std::chrono::milliseconds read{60'000}, write{60'000};
  };
  SocketChannel(int fd, Timeouts timeouts) : fd_(fd), timeouts_(timeouts) {}

  Result<std::size_t> read(std::span<char> into) override;
  Result<void> write(std::span<const std::string_view> pieces, bool more) override;
  Result<void> write_file(int fd, std::uint64_t offset, std::uint64_t length) override;

 private:
  int fd_;
  Timeouts timeouts_;
};

/// What the socket takes without waiting, of both pieces together; 0 if nothing, or if it is broken.
std::size_t send_at_once(int socket, std::string_view first, std::string_view second);
/// True once the other side has closed its half, or the connection is broken.
bool peer_closed(int socket);
/// Waits until the socket is readable or writable (POLLIN, POLLOUT).
Result<void> wait_for(int socket, short events, std::chrono::milliseconds timeout);

}  // namespace lathe::http
