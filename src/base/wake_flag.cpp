#include "base/wake_flag.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace lathe {

namespace {

long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value, const timespec* until) {
  return ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation, value, until, nullptr,
                   FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void WakeFlag::set() {
  if (state_.exchange(kSet, std::memory_order_acq_rel) == kAsleep)
    futex(state_, FUTEX_WAKE_PRIVATE, 1, nullptr);  // the word may be gone by now: then it wakes nobody
}

void WakeFlag::wait() {
  std::uint32_t expected = kClear;
  state_.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel);
  while (state_.load(std::memory_order_acquire) != kSet)
    futex(state_, FUTEX_WAIT_BITSET_PRIVATE, kAsleep, nullptr);
}

bool WakeFlag::wait_for(std::chrono::milliseconds time) {
  std::uint32_t expected = kClear;
  state_.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel);
  timespec until{};
  ::clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += time.count() / 1000;
  until.tv_nsec += time.count() % 1000 * 1'000'000;
  if (until.tv_nsec >= 1'000'000'000) {
    until.tv_nsec -= 1'000'000'000;
    ++until.tv_sec;
  }
  while (state_.load(std::memory_order_acquire) != kSet)
    if (futex(state_, FUTEX_WAIT_BITSET_PRIVATE, kAsleep, &until) != 0 && errno == ETIMEDOUT)
      return state_.load(std::memory_order_acquire) == kSet;
  return true;
}

}  // namespace lathe
