#include "accounts/audit_retention.h"

#include "accounts/accounts_store.h"
#include "base/log.h"

namespace lathe::accounts {

namespace {

constexpr std::chrono::hours kEvery{1};
constexpr std::int64_t kAtATime = 1000;

}  // namespace

AuditRetention::~AuditRetention() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void AuditRetention::start() {
  thread_ = std::thread([this] { run(); });
}

Result<std::int64_t> AuditRetention::drop_old() {
  const Time before = clock_.now() - kept_;
  std::int64_t all = 0;
  while (true) {
    const auto dropped = TRY(db_.write([&](db::Transaction& tx) -> Result<std::int64_t> {
      return store::drop_audit(tx, before, kAtATime);
    }));
    all += dropped;
    if (dropped < kAtATime) return all;
    const std::lock_guard lock(mutex_);
    if (stop_) return all;
  }
}

void AuditRetention::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    const auto dropped = drop_old();
    if (!dropped) {
      log::warning("audit trail: {}", dropped.error().describe(Language::en));
    } else if (*dropped > 0) {
      log::info("audit trail: {} entries were older than is kept and are gone", *dropped);
    }
    lock.lock();
    wake_.wait_for(lock, kEvery, [this] { return stop_; });
  }
}

}  // namespace lathe::accounts
