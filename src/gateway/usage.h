#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>

#include "base/clock.h"
#include "db/database.h"
#include "gateway/usage_scanner.h"
#include "http/api.h"

namespace lathe::gateway {

/// Who has used which service how much, by API key and day (UTC). Counted in memory, written every few
/// seconds by a thread of its own and at the end: a crash forgets the last seconds. Safe from any thread.
class UsageLedger {
 public:
  /// The references must outlive it.
  UsageLedger(db::Database& db, const Clock& clock);
  ~UsageLedger();
  UsageLedger(const UsageLedger&) = delete;
  UsageLedger& operator=(const UsageLedger&) = delete;

  /// One request that was passed on; on I/O threads.
  void record(const http::Request& request, const http::Identity& caller, std::string_view service_id,
              const Usage& usage);
  Result<void> flush();
  /// /api/v1/usage.
  void add_routes(http::Api& api);

 private:
  struct Sum {
    std::int64_t requests = 0;
    Usage usage;
  };
  /// User, Authorization field (a key is looked up when it is written down) and service.
  using Key = std::tuple<std::string, std::string, std::string>;
  using KeyView = std::tuple<std::string_view, std::string_view, std::string_view>;
  struct Less {
    using is_transparent = void;
    static KeyView view(const Key& key) { return key; }
    static const KeyView& view(const KeyView& key) { return key; }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return view(a) < view(b);
    }
  };
  using Sums = std::map<Key, Sum, Less>;
  void loop();

  db::Database& db_;
  const Clock& clock_;
  std::mutex mutex_, flush_mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  Sums sums_;
  std::thread thread_;
};

}  // namespace lathe::gateway
