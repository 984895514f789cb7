#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "gateway/counting.h"
#include "http/socket.h"

namespace lathe::gateway {

class UpstreamPool;

/// One connection to an upstream, with the moments by which something must have happened on it.
struct UpstreamConnection {
  UpstreamConnection(UpstreamPool& pool, http::Loop& loop, Fd fd);
  ~UpstreamConnection();
  UpstreamConnection(const UpstreamConnection&) = delete;
  UpstreamConnection& operator=(const UpstreamConnection&) = delete;

  void expect_within(std::chrono::milliseconds time) { next = socket.loop().now() + time; }

  UpstreamPool& pool;
  http::Socket socket;
  Moment next = Moment::max();  ///< for the next thing to happen
  Moment last = Moment::max();  ///< for everything
  Moment idle_since{};
  bool timed_out = false, reused = false;
  std::size_t slot = 0;  ///< the pool's
};

/// The upstream connections of one I/O thread: kept alive between requests, and cut when their time is over
/// (by one timer for all: a timer for each would cost as much as a system call).
class UpstreamPool {
 public:
  explicit UpstreamPool(http::Loop& loop) : loop_(loop) {}

  using Handle = std::unique_ptr<UpstreamConnection>;
  /// An idle connection that the upstream has not closed, or nothing. `careful`: only one used a moment ago,
  /// which the upstream is not about to close.
  Handle reuse(const Target& target, bool careful);
  /// One that begins to connect; nothing if that fails at once.
  Handle make(const Target& target);
  void give_back(const Target& target, Handle connection);

 private:
  friend struct UpstreamConnection;
  void sweep();
  void schedule();

  http::Loop& loop_;
  std::vector<UpstreamConnection*> all_;
  std::unordered_map<std::uint64_t, std::vector<Handle>> idle_;  ///< by the target's serial
  bool scheduled_ = false;
};

}  // namespace lathe::gateway
