#include "serving/ports.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <random>

namespace lathe::serving {

namespace {

/// Nothing if somebody else has claimed the port.
std::optional<Fd> claim_socket(int port) {
  Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = fmt::format("lathe-port-{}", port);  // after a NUL: abstract
  std::copy(name.begin(), name.end(), &address.sun_path[1]);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return std::nullopt;
  return socket;
}

}  // namespace

Ports::Ports(std::string host, std::uint16_t first, std::uint16_t last)
    : host_(std::move(host)), first_(first), last_(last) {
  // Not always from the same one, so that what another program has just let go of is not taken at once.
  std::random_device random;
  next_ = std::uniform_int_distribution(first_, last_)(random);
}

bool Ports::is_free(int port) const {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // a port that merely lingers in TIME_WAIT is free
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host_.c_str(), &address.sin_addr);
  return bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

std::optional<Ports::Claim> Ports::claim(int port) const {
  auto socket = claim_socket(port);
  if (!socket || !is_free(port)) return std::nullopt;
  return Claim{port, std::move(*socket)};
}

Result<int> Ports::take(const std::string& replica_id, std::optional<int> wanted) {
  const std::scoped_lock lock(mutex_);
  if (wanted) {
    auto claimed = claim(*wanted);
    if (!claimed)
      return Error{Code::unavailable,
                   {fmt::format("端口 {} 已被占用", *wanted), fmt::format("port {} is in use", *wanted)}};
    claims_.insert_or_assign(replica_id, std::move(*claimed));
    return *wanted;
  }
  for (int i = first_; i <= last_; ++i) {
    const int port = next_;
    next_ = next_ == last_ ? first_ : next_ + 1;
    auto claimed = claim(port);
    if (!claimed) continue;
    claims_.insert_or_assign(replica_id, std::move(*claimed));
    return port;
  }
  return Error{Code::unavailable, {"没有空闲的端口", "no port is free"}};
}

void Ports::adopt(const std::string& replica_id, int port) {
  const std::scoped_lock lock(mutex_);
  if (claims_.contains(replica_id)) return;
  // Where another server has claimed it by now, the replica that listens still keeps it from using it.
  claims_.insert_or_assign(replica_id, Claim{port, claim_socket(port).value_or(Fd{})});
}

void Ports::release(const std::string& replica_id) {
  const std::scoped_lock lock(mutex_);
  claims_.erase(replica_id);
}

}  // namespace lathe::serving
