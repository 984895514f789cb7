#include "http/channel.h"

#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace lathe::http {

namespace {

constexpr std::size_t kMaxPieces = 8;

Error gone(const char* zh, const char* en) {
  return {Code::cancelled, {zh, en}};
}

Error broken() {
  return gone("连接已中断", "the connection is broken");
}

/// The pieces from byte `skip` on.
int fill(std::array<iovec, kMaxPieces>& out, std::span<const std::string_view> pieces, std::size_t skip) {
  int count = 0;
  for (auto piece : pieces) {
    const std::size_t cut = std::min(skip, piece.size());
    skip -= cut;
    piece.remove_prefix(cut);
    if (piece.empty() || count == static_cast<int>(kMaxPieces)) continue;
    out[static_cast<std::size_t>(count++)] = {const_cast<char*>(piece.data()), piece.size()};
  }
  return count;
}

ssize_t send_pieces(int socket, std::span<const std::string_view> pieces, std::size_t skip, int flags) {
  std::array<iovec, kMaxPieces> vectors;
  msghdr message{};
  message.msg_iov = vectors.data();
  message.msg_iovlen = static_cast<std::size_t>(fill(vectors, pieces, skip));
  return ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT | flags);
}

bool would_block(int error) {
  return error == EAGAIN || error == EWOULDBLOCK;
}

}  // namespace

Result<void> wait_for(int socket, short events, std::chrono::milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    pollfd waiting{socket, events, 0};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30)));
    if (ready > 0) return {};
    if (ready == 0)
      return Error{Code::deadline_exceeded,
                   {"对方长时间没有收发数据", "the other side neither sent nor took data in time"}};
    if (errno != EINTR) return system_error("poll", errno);
  }
}

Result<std::size_t> SocketChannel::read(std::span<char> into) {
  for (;;) {
    const ssize_t got = ::recv(fd_, into.data(), into.size(), MSG_DONTWAIT);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR) continue;
    if (!would_block(errno)) return broken();
    TRY(wait_for(fd_, POLLIN, timeouts_.read));
  }
}

Result<void> SocketChannel::write(std::span<const std::string_view> pieces, bool more) {
  std::size_t total = 0, sent = 0;
  for (const auto piece : pieces) total += piece.size();
  while (sent < total) {
    const ssize_t took = send_pieces(fd_, pieces, sent, more ? MSG_MORE : 0);
    if (took > 0) {
      sent += static_cast<std::size_t>(took);
    } else if (would_block(errno)) {
      TRY(wait_for(fd_, POLLOUT, timeouts_.write));
    } else if (errno != EINTR) {
      return broken();
    }
  }
  return {};
}

Result<void> SocketChannel::write_file(int fd, std::uint64_t offset, std::uint64_t length) {
  auto position = static_cast<off_t>(offset);
  while (length > 0) {
    // The socket's own mode decides whether sendfile waits, so it is asked for room first.
    TRY(wait_for(fd_, POLLOUT, timeouts_.write));
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(length, 1 << 20));
    const ssize_t sent = ::sendfile(fd_, fd, &position, want);
    if (sent > 0) {
      length -= static_cast<std::uint64_t>(sent);
    } else if (sent == 0) {
      return Error{Code::internal, {"文件在发送时变短", "the file became shorter while it was sent"}};
    } else if (!would_block(errno) && errno != EINTR) {
      return errno == EPIPE || errno == ECONNRESET ? Result<void>(broken())
                                                   : Result<void>(system_error("sendfile", errno));
    }
  }
  return {};
}

std::size_t send_at_once(int socket, std::string_view first, std::string_view second) {
  const std::array<std::string_view, 2> pieces{first, second};
  const ssize_t took = send_pieces(socket, pieces, 0, 0);
  return took > 0 ? static_cast<std::size_t>(took) : 0;
}

bool peer_closed(int socket) {
  pollfd asked{socket, POLLRDHUP, 0};
  return ::poll(&asked, 1, 0) > 0 && (asked.revents & (POLLRDHUP | POLLERR | POLLHUP | POLLNVAL)) != 0;
}

}  // namespace lathe::http
