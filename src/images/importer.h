#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "db/database.h"
#include "files/files.h"
#include "images/archive_import.h"
#include "images/blob_store.h"
#include "images/images.h"
#include "images/images_store.h"
#include "images/pull/remote.h"
#include "images/uploads.h"

namespace lathe::images {

/// Runs imports in the background, a few at a time. An import is a row; it becomes visible in the transaction
/// that ends it, so that one cut short at any point leaves nothing but blobs that nobody names, and begins
/// again at the next start. Safe from any thread.
class Importer {
 public:
  Importer(db::Database& db, files::Files& files, BlobStore& store, Uploads& uploads, const Clock& clock,
           const Options& options)
      : db_(db), files_(files), store_(store), uploads_(uploads), clock_(clock), options_(options) {}
  ~Importer();

  /// Takes up what was not finished, and starts the threads.
  Result<void> start();
  /// Ends them: what is under way begins again at the next start.
  void stop();
  /// The credentials of a pull are forgotten at its end.
  void add(const store::ImportRow& row, pull::Credentials credentials = {});
  /// Ends the imports of an image that is being deleted.
  void cancel(std::string_view image_id);
  /// Called on an import's thread at its end. Before start.
  void on_change(std::function<void(std::string_view image_id)> changed) { changed_ = std::move(changed); }

  /// Called with blobs that may be without use now. Before start.
  void on_unused(std::function<void(const std::vector<std::string>& digests)> unused) {
    unused_ = std::move(unused);
  }

  struct Progress {
    std::uint64_t done = 0, total = 0;  ///< bytes of the archive
  };
  /// Of a running import; nothing for any other.
  std::optional<Progress> progress(std::string_view import_id) const;
  /// Of the image's import that is running.
  std::optional<Progress> progress_of_image(std::string_view image_id) const;

 private:
  struct Running {
    std::string image_id;
    std::string puller;  ///< the user whose pull it is; empty for an archive's import
    std::atomic<std::uint64_t> done{0}, total{0};
    std::atomic<bool> cancelled{false};
    std::vector<std::string> entries;  ///< digests of what it has put into the store; for its own thread
  };
  void work();
  std::deque<store::ImportRow>::iterator next();
  void run(const store::ImportRow& row, Running& running);
  Result<void> import(const store::ImportRow& row, Running& running);
  Result<void> import_file(const store::ImportRow& row, Running& running);
  Result<void> pull(const store::ImportRow& row, Running& running);
  Result<std::string> image_name(const store::ImportRow& row);
  bool pause(Duration how_long, const Running& running);
  pull::Credentials credentials_of(const std::string& import_id);
  Result<void> commit(const store::ImportRow& row, const Contents& image, const Running& running);
  Result<void> remember(const store::ImportRow& row, std::string_view source, ImportRequest& request,
                        Running& running);
  void fail(const store::ImportRow& row, const Error& error);
  void notify(const std::string& image_id);

  db::Database& db_;
  files::Files& files_;
  BlobStore& store_;
  Uploads& uploads_;
  const Clock& clock_;
  const Options& options_;
  std::function<void(std::string_view)> changed_;
  std::function<void(const std::vector<std::string>&)> unused_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<store::ImportRow> queue_;
  std::map<std::string, pull::Credentials, std::less<>> credentials_;  ///< by import
  std::map<std::string, std::shared_ptr<Running>, std::less<>> running_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace lathe::images
