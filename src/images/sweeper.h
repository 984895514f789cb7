#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "db/database.h"
#include "images/blob_store.h"
#include "images/images.h"

namespace lathe::images {

/// Keeps the store in order in the background: rewrites its index.json after changes, and removes, after
/// their time, what no tag leads to, blobs and uploads that nobody came back for, and blobs that nothing
/// needs. Beside it pushes, pulls and imports go on: see BlobStore::collect. Safe from any thread.
class Sweeper {
 public:
  Sweeper(db::Database& db, BlobStore& store, const Clock& clock, const Options& options)
      : db_(db), store_(store), clock_(clock), options_(options) {}
  ~Sweeper();

  /// Also called in every sweep, with the time before which things are too old.
  void also(std::function<Result<void>(Time before)> step) { steps_.push_back(std::move(step)); }
  /// What no tag leads to and `uses` gives is not removed.
  void keep(Images::Uses uses);
  void uses_are_told() { uses_are_told_ = true; }
  std::set<std::string, std::less<>> kept(db::Transaction& tx) const;
  /// Removes what nothing needs, but for what no tag leads to, then starts the thread.
  Result<void> start();
  /// index.json is to be written anew, soon.
  void index_changed();
  /// Removes those of `digests` that nothing needs any more, now.
  void collect(const std::vector<std::string>& digests);
  /// One sweep, now; gives the bytes freed.
  Result<std::uint64_t> sweep();

 private:
  void run();
  Result<bool> in_use(const std::string& digest);

  db::Database& db_;
  BlobStore& store_;
  const Clock& clock_;
  const Options& options_;
  std::vector<std::function<Result<void>(Time)>> steps_;
  mutable std::mutex mutex_;
  std::vector<Images::Uses> uses_;
  std::condition_variable wake_;
  std::atomic<bool> uses_are_told_{false};
  bool stop_ = false, index_is_old_ = false;
  std::thread thread_;
};

}  // namespace lathe::images
