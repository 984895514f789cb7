#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace lathe::serving {

/// The ports of this machine's replicas. None is given twice, also not by another server on this machine: a
/// port is claimed by a socket in the kernel's abstract name space, which goes with the process that holds
/// it. Safe from any thread.
class Ports {
 public:
  /// For replicas that take any port: from `first` to `last`.
  Ports(std::string host, std::uint16_t first, std::uint16_t last);

  /// A port on which nobody listens, for that replica until it is released. `wanted`: this one and no other;
  /// unavailable if it is taken.
  Result<int> take(const std::string& replica_id, std::optional<int> wanted = std::nullopt);
  /// The replica runs already, with this port.
  void adopt(const std::string& replica_id, int port);
  void release(const std::string& replica_id);

 private:
  struct Claim {
    int port = 0;
    Fd socket;
  };
  std::optional<Claim> claim(int port) const;
  bool is_free(int port) const;

  const std::string host_;
  const int first_, last_;
  std::mutex mutex_;
  int next_;
  std::map<std::string, Claim> claims_;
};

}  // namespace lathe::serving
