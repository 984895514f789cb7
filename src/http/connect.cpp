#include "http/connect.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "http/channel.h"

namespace lathe::http {

namespace {

Error unreachable(const std::string& where, const std::string& why) {
  return {Code::unavailable, {"无法连接 " + where + "：" + why, "cannot connect to " + where + ": " + why}};
}

Result<int> connect_one(const sockaddr* address, socklen_t size, int family, const std::string& where,
                        std::chrono::milliseconds timeout) {
  const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return system_error("socket", errno);
  int failure = 0;
  if (::connect(fd, address, size) != 0) failure = errno;
  if (failure == EINPROGRESS) {
    const auto ready = wait_for(fd, POLLOUT, timeout);
    socklen_t length = sizeof failure;
    if (!ready) {
      ::close(fd);
      return ready.error().code == Code::deadline_exceeded
                 ? Error{Code::deadline_exceeded,
                         {"连接 " + where + " 超时", "connecting to " + where + " took too long"}}
                 : ready.error();
    }
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length);
  }
  if (failure == 0) return fd;
  ::close(fd);
  return unreachable(where, std::strerror(failure));
}

Result<int> connect_unix(const std::string& path, std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return unreachable(path, "the path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return connect_one(reinterpret_cast<const sockaddr*>(&address), sizeof address, AF_UNIX, path, timeout);
}

}  // namespace

Result<Address> Address::parse(std::string_view text) {
  const Error wrong = invalid_field("server", {"应为 http://主机:端口", "should be http://host:port"});
  if (text.starts_with("http://")) text.remove_prefix(7);
  while (text.ends_with('/')) text.remove_suffix(1);
  Address out;
  std::size_t colon = text.rfind(':');
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return wrong;
    out.host = text.substr(1, close - 1);
    colon = close + 1 < text.size() ? close + 1 : std::string_view::npos;
    if (colon != std::string_view::npos && text[colon] != ':') return wrong;
  } else {
    out.host = text.substr(0, std::min(colon, text.size()));
  }
  if (colon != std::string_view::npos) {
    const auto port = text.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (error != std::errc{} || end != port.data() + port.size() || out.port == 0) return wrong;
  }
  if (out.host.empty() || out.host.find_first_of("/ ?#@") != std::string::npos) return wrong;
  return out;
}

Result<int> connect_to(const Address& address, std::chrono::milliseconds timeout) {
  if (!address.unix_path.empty()) return connect_unix(address.unix_path, timeout);
  const std::string where = address.host + ":" + std::to_string(address.port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  int failed = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (failed == EAI_ADDRFAMILY || failed == EAI_NONAME || failed == EAI_NODATA) {
    // A machine with nothing but the loopback interface has no "configured" address family.
    hints.ai_flags = AI_NUMERICSERV;
    failed = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  }
  if (failed != 0) return unreachable(where, ::gai_strerror(failed));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  Error last = unreachable(where, "no address");
  for (const auto* one = found; one; one = one->ai_next) {
    auto fd = connect_one(one->ai_addr, one->ai_addrlen, one->ai_family, where, timeout);
    if (fd) {
      const int on = 1;
      ::setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return fd;
    }
    last = fd.error();
  }
  return last;
}

}  // namespace lathe::http
