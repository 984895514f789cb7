#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace lathe {

/// Set once by one thread and waited for by one other, which may destroy it as soon as it is set:
/// std::atomic's notify_one, a semaphore and a condition variable would all still touch it then.
class WakeFlag {
 public:
  /// Costs a system call only if somebody sleeps.
  void set();
  void wait();
  /// False: the time is up, and it was not set. It may be set yet.
  bool wait_for(std::chrono::milliseconds time);
  /// For another round. Only when nobody else knows it.
  void clear() { state_.store(kClear, std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kClear = 0, kAsleep = 1, kSet = 2;
  std::atomic<std::uint32_t> state_{kClear};
};

}  // namespace lathe
