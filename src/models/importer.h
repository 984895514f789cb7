#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/directory.h"
#include "db/database.h"
#include "files/files.h"
#include "models/models.h"
#include "models/models_store.h"

namespace lathe::models {

/// Does in the background what versions wait for: copies their files into the models' folder, and removes the
/// files of those that were deleted. What is to be done stands in rows; a copy is staged under another name,
/// made durable, then renamed, and only then its version becomes ready: `kill -9` at any point leaves a
/// version that is imported anew, or found whole. Safe from any thread.
class Importer {
 public:
  struct Options {
    std::string folder;       ///< DATA/models; made where absent
    std::size_t workers = 2;  ///< imports at the same time
  };
  /// The references must outlive it.
  static Result<std::unique_ptr<Importer>> open(db::Database& db, files::Files& files, const Clock& clock,
                                                Options options);
  /// Breaks off what is under way; the next start begins it again.
  ~Importer();

  void on_change(Models::Observer observer) { observers_.push_back(std::move(observer)); }
  /// Clears what a killed server left half done and takes up what the rows say.
  Result<void> start();

  /// A version was committed as importing.
  void add_import(const std::string& version_id, const std::string& user_id);
  /// A version was deleted and its removal committed; an import of it is broken off.
  void add_removal(const std::string& version_id, const std::string& folder);
  void changed(std::string_view version_id);

  /// Part of the copy that is done, 0 … 1; nothing while it waits for its turn.
  std::optional<double> progress(std::string_view version_id) const;
  /// The models' folder on this machine.
  const std::string& folder() const { return options_.folder; }

 private:
  struct Task {
    bool removal = false;
    std::string version_id;
    std::string user_id;  ///< of an import
    std::string folder;   ///< of a removal
  };
  struct Active {
    std::string user_id;
    std::atomic<std::int64_t> done{0}, total{0};
    std::atomic<bool> cancelled{false};
  };

  Importer(db::Database& db, files::Files& files, const Clock& clock, Options options, Directory root)
      : db_(db), files_(files), clock_(clock), options_(std::move(options)), root_(std::move(root)) {}

  void run();
  /// The next task that may run now, marked as active; nothing at the end.
  std::optional<Task> take();
  std::optional<std::size_t> choose() const;
  void finish(const Task& task, bool again);

  /// True if it should be tried again later.
  bool import(const Task& task, Active& active);
  bool remove(const Task& task);
  Result<void> import_files(store::VersionRow& row, Active& active);
  Result<void> copy_files(store::VersionRow& row, const Path& staging, Active& active);
  Result<void> copy_config(const store::VersionRow& row, const Path& staging, Active& active);
  Result<void> charge(store::VersionRow& row, const TreeSize& size);
  Result<void> inspect(store::VersionRow& row);
  Result<void> remove_folder(const Path& path);
  /// Removes what there is of a version, staged or whole.
  Result<void> clear(const std::string& version_id, const std::string& folder);
  bool broken_off(const Active& active) const;
  /// Nothing: the version is no more.
  Result<bool> record(const store::VersionRow& row);

  db::Database& db_;
  files::Files& files_;
  const Clock& clock_;
  const Options options_;
  const Directory root_;
  std::vector<Models::Observer> observers_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> waiting_;
  std::map<std::string, std::shared_ptr<Active>, std::less<>> active_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace lathe::models
