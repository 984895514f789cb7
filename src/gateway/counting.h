#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "gateway/gateway.h"

namespace lathe::gateway {

using Moment = std::chrono::steady_clock::time_point;

/// Times counted by many threads without a lock.
class TimeCounts {
 public:
  void add(std::chrono::nanoseconds time);
  std::uint64_t count() const;
  void add_to(Times& times) const;

 private:
  std::array<std::atomic<std::uint64_t>, kTimeBounds.size() + 1> counts_{};
  std::atomic<std::uint64_t> nanoseconds_{0};
};

/// A number that goes up and down, and its integral over time.
class Level {
 public:
  std::uint64_t enter(Moment now);  ///< the number after it
  std::uint64_t leave(Moment now);
  std::uint64_t now() const { return count_.load(); }
  double seconds(Moment now) const;  ///< the integral

 private:
  void move(Moment now);
  mutable std::mutex mutex_;
  std::atomic<std::uint64_t> count_{0};
  Moment moved_at_{};
  std::uint64_t nanoseconds_ = 0;
};

class Registry;

/// One upstream as the gateway keeps it, across tables.
struct Target {
  /// Resolves the address: an upstream is given by number.
  Target(Upstream upstream, const std::string& service_id, const std::string& version_id, Registry* registry);

  const Upstream upstream;
  const std::uint64_t serial;  ///< never the same twice
  sockaddr_storage address{};
  socklen_t address_size = 0;  ///< 0: not an IP address
  std::string authority;       ///< for Host
  const std::string service_id, version_id;
  const std::string log_words;  ///< the three ids, for the access log
  Registry* const registry;
  Level in_flight;
  std::atomic<bool> routed{true};
  std::atomic<bool> told{false};  ///< that it is drained
  std::atomic<std::uint64_t> requests{0}, failures{0}, bytes_in{0}, bytes_out{0};
  std::atomic<std::uint64_t> prompt_tokens{0}, completion_tokens{0};
  TimeCounts first_byte, duration;
  /// Until then another is preferred: it could not be reached.
  std::atomic<std::chrono::steady_clock::rep> shunned_until{0};
  /// Requests that ended without an answer since it last began one, and until when they count.
  std::atomic<std::uint64_t> unanswered{0};
  std::atomic<std::chrono::steady_clock::rep> unanswered_until{0};

  void add_to(Counters& counters, Moment now) const;
  void shun(Moment until) {
    shunned_until.store(until.time_since_epoch().count(), std::memory_order_relaxed);
  }
  bool shunned(Moment now) const {
    return now.time_since_epoch().count() < shunned_until.load(std::memory_order_relaxed);
  }
  void begins_answer(std::chrono::nanoseconds after);
  void leaves_unanswered(Moment now);
  /// Requests under way, and those given up: a replica that hangs is not the less loaded because its callers
  /// have lost patience.
  std::uint64_t load(Moment now) const;
  /// Changes whenever it sends something: part of an answer.
  std::uint64_t sent() const;
};

void add(Counters& sum, const Counters& more);

}  // namespace lathe::gateway
