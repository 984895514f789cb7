#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>

#include "accounts/accounts.h"
#include "base/result.h"

namespace lathe::accounts {

/// Passwords as argon2id hashes. Each check costs memory and time on purpose, so only few run at once, a few
/// more wait, and the rest are sent away. Safe from any thread; blocks.
class Passwords {
 public:
  Passwords(PasswordCost cost, std::size_t concurrent);

  /// Errors: resource_exhausted when too many are at it already.
  Result<std::string> hash(std::string_view password);
  /// An empty `hash` (there is no such user) costs as much time as a real one, and is never right.
  Result<bool> verify(std::string_view hash, std::string_view password);

 private:
  Result<void> acquire();
  void release();

  const PasswordCost cost_;
  const std::string nobody_;  ///< the hash of no password
  std::mutex mutex_;
  std::condition_variable freed_;
  std::size_t free_;
  std::size_t waiting_ = 0;
};

}  // namespace lathe::accounts
