#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "base/directory.h"
#include "db/database.h"
#include "files/files.h"
#include "quotas/quotas.h"

namespace lathe::files {

/// How much every user's files take: kept in memory as files come and go, and counted anew from the disk in
/// turn, since jobs write there too. Safe from any thread.
class Usage {
 public:
  /// Walks all of a user's files; an error leaves the old figure.
  using Count =
      std::function<Result<quotas::Storage>(const std::string& user_id, const std::atomic<bool>& stop)>;

  Usage(db::Database& db, quotas::Quotas& quotas, const Clock& clock, Duration interval, Count count);
  ~Usage();

  /// Loads what was known when the server ended, and starts the thread that counts.
  Result<void> start(const std::vector<std::string>& user_ids);

  /// Files and reservations together, from memory.
  quotas::Storage of(std::string_view user_id) const;
  Result<std::unique_ptr<Reservation>> reserve(std::string_view user_id);
  /// Files that went: the counterpart of Reservation::commit.
  void release(std::string_view user_id, std::int64_t bytes, std::int64_t inodes);
  void recount(std::string_view user_id);
  Result<quotas::Storage> count_now(const std::string& user_id);

 private:
  class Held;
  struct Counter {
    quotas::Storage used;
    quotas::Storage reserved;
    quotas::Storage changed;  ///< since the walk under way began
  };
  Counter& counter(std::string_view user_id);
  void run();
  Result<void> save(const std::string& user_id, quotas::Storage used);

  db::Database& db_;
  quotas::Quotas& quotas_;
  const Clock& clock_;
  const Duration interval_;
  const Count count_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, Counter, std::less<>> counters_;
  std::deque<std::string> queue_;
  std::set<std::string, std::less<>> queued_;
  std::atomic<bool> stop_{false};
  std::mutex walking_;  ///< one walk at a time
  std::thread thread_;
};

}  // namespace lathe::files
