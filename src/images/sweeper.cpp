#include "images/sweeper.h"

#include "base/log.h"
#include "images/contents_store.h"
#include "images/images_store.h"
#include "images/oci.h"

namespace lathe::images {

namespace {

Result<void> write_index(db::Database& db, BlobStore& store) {
  return store.write_index([&]() -> Result<std::string> {
    return oci::write_index(TRY(db.read([](db::Transaction& tx) -> Result<std::vector<oci::IndexEntry>> {
      return store::index_entries(tx);
    })));
  });
}

void complain(const Result<void>& done) {
  if (!done) log::warning("image store: {}", done.error().describe(Language::en));
}

}  // namespace

Sweeper::~Sweeper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> Sweeper::start() {
  // A full disk, for one, is no reason not to serve what there is: the next round makes up for it.
  if (auto freed = sweep(); !freed) {
    complain(freed.error());
  } else if (*freed > 0) {
    log::info("image store: {} bytes that nothing needed were removed", *freed);
  }
  complain(write_index(db_, store_));
  thread_ = std::thread([this] { run(); });
  return {};
}

void Sweeper::keep(Images::Uses uses) {
  const std::lock_guard lock(mutex_);
  uses_.push_back(std::move(uses));
}

std::set<std::string, std::less<>> Sweeper::kept(db::Transaction& tx) const {
  std::vector<Images::Uses> all;
  {
    const std::lock_guard lock(mutex_);
    all = uses_;
  }
  std::set<std::string, std::less<>> out;
  for (const auto& uses : all)
    for (auto& digest : uses(tx)) out.insert(std::move(digest));
  return out;
}

void Sweeper::index_changed() {
  {
    const std::lock_guard lock(mutex_);
    index_is_old_ = true;
  }
  wake_.notify_all();
}

Result<bool> Sweeper::in_use(const std::string& digest) {
  return db_.read([&](db::Transaction& tx) -> Result<bool> { return store::blob_in_use(tx, digest); });
}

void Sweeper::collect(const std::vector<std::string>& digests) {
  auto freed = store_.collect(digests, [this](const std::string& digest) { return in_use(digest); });
  if (!freed) log::warning("image store: {}", freed.error().describe(Language::en));
}

Result<std::uint64_t> Sweeper::sweep() {
  const Time before = clock_.now() - options_.unused_lifetime;
  for (const auto& step : steps_) TRY(step(before));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    if (uses_are_told_) store::drop_expired(tx, before, kept(tx));
    store::drop_expired_blobs(tx, before);
    store::forget_manifests(tx);
    return {};
  }));
  return store_.collect([this](const std::string& digest) { return in_use(digest); });
}

void Sweeper::run() {
  auto next = std::chrono::steady_clock::now() + options_.sweep_interval;
  std::unique_lock lock(mutex_);
  while (!stop_) {
    wake_.wait_until(lock, next, [this] { return stop_ || index_is_old_; });
    if (stop_) return;
    const bool write = std::exchange(index_is_old_, false);
    lock.unlock();
    if (write) complain(write_index(db_, store_));
    if (std::chrono::steady_clock::now() >= next) {
      if (auto freed = sweep(); !freed) log::warning("image store: {}", freed.error().describe(Language::en));
      next = std::chrono::steady_clock::now() + options_.sweep_interval;
    }
    lock.lock();
  }
}

}  // namespace lathe::images
