#pragma once

#include <functional>
#include <shared_mutex>
#include <string>
#include <vector>

namespace lathe::app {

/// Passes an engine's hints on to everybody who has runs, and stops doing so before they are gone. Listeners
/// must not block. Safe from any thread.
class RunListeners {
 public:
  using Listener = std::function<void(const std::string& run_id)>;

  void add(Listener listener) {
    const std::unique_lock lock(mutex_);
    listeners_.push_back(std::move(listener));
  }
  void tell(const std::string& run_id) {
    const std::shared_lock lock(mutex_);
    for (const auto& listener : listeners_) listener(run_id);
  }
  /// When this returns, no listener runs, and none will.
  void close() {
    const std::unique_lock lock(mutex_);
    listeners_.clear();
  }

 private:
  std::shared_mutex mutex_;
  std::vector<Listener> listeners_;
};

}  // namespace lathe::app
