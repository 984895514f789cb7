#pragma once

#include <cstddef>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/clock.h"
#include "base/result.h"

namespace lathe::accounts {

/// Slows the guessing of passwords: so many tries in a while for a user name from one address. A try counts
/// before its outcome is known, so that many at once do not slip through. Safe from any thread.
class LoginLimiter {
 public:
  static constexpr int kTries = 10;
  static constexpr Duration kWindow = std::chrono::minutes{1};

  explicit LoginLimiter(const Clock& clock) : clock_(clock) {}
  /// Counts a try; resource_exhausted, with the time to wait, when there were too many.
  Result<void> begin(const std::string& user_name, const std::string& peer);
  /// The try was right: forgets the ones before.
  void succeeded(const std::string& user_name, const std::string& peer);

 private:
  struct Window {
    Time ends{};
    int tries = 0;
  };
  void make_room(Time now);

  const Clock& clock_;
  std::mutex mutex_;
  std::unordered_map<std::string, Window> windows_;
};

}  // namespace lathe::accounts
