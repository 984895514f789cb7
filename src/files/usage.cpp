#include "files/usage.h"

#include <algorithm>
#include <iterator>

#include "base/log.h"
#include "files/files_store.h"

namespace lathe::files {

namespace {

constexpr std::chrono::seconds kOthersFresh{1};

std::string size_words(std::int64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 2, kUnits[unit]);
}

Error over_bytes(std::int64_t used, std::int64_t wanted, std::int64_t allowed) {
  return {Code::storage_exhausted,
          {"存储配额不足：已用 " + size_words(used) + "，还需 " + size_words(wanted) + "，配额 " +
               size_words(allowed),
           "over the storage quota: " + size_words(used) + " in use, " + size_words(wanted) +
               " more wanted, " + size_words(allowed) + " allowed"}};
}

Error over_inodes(std::int64_t used, std::int64_t wanted, std::int64_t allowed) {
  const std::string u = std::to_string(used), w = std::to_string(wanted), a = std::to_string(allowed);
  return {Code::storage_exhausted,
          {"文件数配额不足：已用 " + u + "，还需 " + w + "，配额 " + a,
           "over the quota of files: " + u + " in use, " + w + " more wanted, " + a + " allowed"}};
}

void add(quotas::Storage& to, std::int64_t bytes, std::int64_t inodes) {
  to.bytes += bytes;
  to.inodes += inodes;
}

}  // namespace

class Usage::Held final : public Reservation {
 public:
  Held(Usage& usage, std::string user_id) : usage_(usage), user_id_(std::move(user_id)) {}

  ~Held() override {
    std::lock_guard lock(usage_.mutex_);
    add(usage_.counter(user_id_).reserved, -held_.bytes, -held_.inodes);
  }

  Result<void> grow(std::int64_t bytes, std::int64_t inodes) override {
    TRY(refresh());
    std::lock_guard lock(usage_.mutex_);
    Counter& counter = usage_.counter(user_id_);
    const std::int64_t used_bytes = others_.bytes + counter.used.bytes + counter.reserved.bytes;
    const std::int64_t used_inodes = others_.inodes + counter.used.inodes + counter.reserved.inodes;
    if (quota_.storage_bytes && bytes > 0 && used_bytes + bytes > *quota_.storage_bytes)
      return over_bytes(used_bytes, bytes, *quota_.storage_bytes);
    if (quota_.storage_inodes && inodes > 0 && used_inodes + inodes > *quota_.storage_inodes)
      return over_inodes(used_inodes, inodes, *quota_.storage_inodes);
    add(counter.reserved, bytes, inodes);
    add(held_, bytes, inodes);
    return {};
  }

  void commit(std::int64_t bytes, std::int64_t inodes) override {
    std::lock_guard lock(usage_.mutex_);
    Counter& counter = usage_.counter(user_id_);
    add(counter.reserved, -held_.bytes, -held_.inodes);
    held_ = {};
    add(counter.used, bytes, inodes);
    add(counter.changed, bytes, inodes);
  }

 private:
  /// What images and models take, and the quota itself, as of a moment ago.
  Result<void> refresh() {
    const auto now = std::chrono::steady_clock::now();
    if (fresh_until_ > now) return {};
    quota_ = TRY(usage_.quotas_.quota_of(user_id_));
    if (quota_.storage_bytes || quota_.storage_inodes) {
      const quotas::Storage all = TRY(usage_.db_.read([&](db::Transaction& tx) -> Result<quotas::Storage> {
        return usage_.quotas_.storage_of(tx, user_id_);
      }));
      const quotas::Storage own = usage_.of(user_id_);
      others_ = {std::max<std::int64_t>(0, all.bytes - own.bytes),
                 std::max<std::int64_t>(0, all.inodes - own.inodes)};
    }
    fresh_until_ = now + kOthersFresh;
    return {};
  }

  Usage& usage_;
  const std::string user_id_;
  quotas::Storage held_, others_;
  quotas::Quota quota_;
  std::chrono::steady_clock::time_point fresh_until_{};
};

Usage::Usage(db::Database& db, quotas::Quotas& quotas, const Clock& clock, Duration interval, Count count)
    : db_(db), quotas_(quotas), clock_(clock), interval_(interval), count_(std::move(count)) {}

Usage::~Usage() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> Usage::start(const std::vector<std::string>& user_ids) {
  const auto known =
      TRY(db_.read([](db::Transaction& tx) -> Result<std::vector<UsageRow>> { return all_usage(tx); }));
  {
    std::lock_guard lock(mutex_);
    for (const UsageRow& row : known) counter(row.user_id).used = {row.bytes, row.inodes};
    for (const std::string& id : user_ids)
      if (queued_.insert(id).second) queue_.push_back(id);
  }
  thread_ = std::thread([this] { run(); });
  return {};
}

Usage::Counter& Usage::counter(std::string_view user_id) {
  auto it = counters_.find(user_id);
  if (it == counters_.end()) it = counters_.emplace(std::string(user_id), Counter{}).first;
  return it->second;
}

quotas::Storage Usage::of(std::string_view user_id) const {
  std::lock_guard lock(mutex_);
  const auto it = counters_.find(user_id);
  if (it == counters_.end()) return {};
  const Counter& c = it->second;
  return {c.used.bytes + c.reserved.bytes, c.used.inodes + c.reserved.inodes};
}

Result<std::unique_ptr<Reservation>> Usage::reserve(std::string_view user_id) {
  auto held = std::make_unique<Held>(*this, std::string(user_id));
  return std::unique_ptr<Reservation>(std::move(held));
}

void Usage::release(std::string_view user_id, std::int64_t bytes, std::int64_t inodes) {
  std::lock_guard lock(mutex_);
  Counter& c = counter(user_id);
  add(c.used, -bytes, -inodes);
  add(c.changed, -bytes, -inodes);
}

void Usage::recount(std::string_view user_id) {
  {
    std::lock_guard lock(mutex_);
    if (queued_.emplace(user_id).second) queue_.emplace_front(user_id);
  }
  wake_.notify_one();
}

Result<quotas::Storage> Usage::count_now(const std::string& user_id) {
  std::lock_guard one(walking_);
  {
    std::lock_guard lock(mutex_);
    counter(user_id).changed = {};
  }
  const quotas::Storage found = TRY(count_(user_id, stop_));
  quotas::Storage used;
  {
    std::lock_guard lock(mutex_);
    Counter& c = counter(user_id);
    // What came while the walk went on may have been counted or not; the next walk tells.
    used = {std::max<std::int64_t>(0, found.bytes + c.changed.bytes),
            std::max<std::int64_t>(0, found.inodes + c.changed.inodes)};
    c.used = used;
  }
  TRY(save(user_id, used));
  return used;
}

Result<void> Usage::save(const std::string& user_id, quotas::Storage used) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    save_usage(tx, {user_id, used.bytes, used.inodes, clock_.now()});
    return {};
  });
}

void Usage::run() {
  auto next_round = std::chrono::steady_clock::now() + interval_;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (queue_.empty()) {
      wake_.wait_until(lock, next_round, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      if (queue_.empty()) {
        next_round = std::chrono::steady_clock::now() + interval_;
        for (const auto& [id, unused] : counters_)
          if (queued_.insert(id).second) queue_.push_back(id);
        continue;
      }
    }
    const std::string id = queue_.front();
    queue_.pop_front();
    queued_.erase(id);
    lock.unlock();
    if (auto counted = count_now(id); !counted && !stop_)
      log::warning("the files of user {} could not be counted: {}", id,
                   counted.error().describe(Language::en));
    lock.lock();
  }
}

}  // namespace lathe::files
