#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "db/database.h"

namespace lathe::accounts {

/// Takes from the audit trail what is older than `kept`, in the background: at start, then every hour, a
/// thousand entries a transaction, so that no writer waits long. Safe from any thread.
class AuditRetention {
 public:
  /// The references must outlive it.
  AuditRetention(db::Database& db, const Clock& clock, Duration kept) : db_(db), clock_(clock), kept_(kept) {}
  ~AuditRetention();
  AuditRetention(const AuditRetention&) = delete;
  AuditRetention& operator=(const AuditRetention&) = delete;

  /// Starts the thread.
  void start();
  /// One look, now; gives how many entries are gone.
  Result<std::int64_t> drop_old();

 private:
  void run();

  db::Database& db_;
  const Clock& clock_;
  const Duration kept_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lathe::accounts
