#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "base/directory.h"
#include "db/database.h"
#include "files/files.h"
#include "files/files_store.h"
#include "files/staging.h"
#include "files/tus.h"
#include "http/message.h"

namespace lathe::files {

/// Resumable uploads: bytes arrive in pieces, over days and restarts, and what was acknowledged is durable.
/// Each is a row and a folder for staging of its own. Safe from any thread.
class Resumable {
 public:
  /// Takes up the uploads that were under way: finishes those that only had to be published.
  static Result<std::unique_ptr<Resumable>> open(Files& files, Publishing& publishing,
                                                 const Directory& staging, db::Database& db, IdSource& ids,
                                                 const Clock& clock, const Options& options);
  ~Resumable();

  /// A new upload of `length` bytes to `path`; the whole length counts against the quota from here on.
  Result<UploadRow> create(const Root& root, const Path& path, std::string_view created_by,
                           std::int64_t length, std::string_view metadata);
  /// not_found for an upload that is not, is no longer, or is another user's.
  Result<UploadRow> find(std::string_view id, const http::Identity& caller);
  Result<void> remove(std::string_view id, const http::Identity& caller);

  enum class Refused {
    offset,    ///< the upload stands elsewhere
    busy,      ///< another request is writing to it
    checksum,  ///< the bytes were others than promised, and are forgotten
  };
  struct Received {
    UploadRow row;
    std::optional<Refused> refused;
  };
  /// Takes the body's bytes from `offset` on. What has arrived when the body breaks off stays, unless there
  /// is a checksum. The last byte publishes the file.
  Result<Received> receive(std::string_view id, const http::Identity& caller, std::int64_t offset,
                           std::optional<tus::Checksum> checksum, http::BodyReader& body);

 private:
  Resumable(Files& files, Publishing& publishing, const Directory& staging, db::Database& db, IdSource& ids,
            const Clock& clock, const Options& options)
      : files_(files),
        publishing_(publishing),
        staging_(staging),
        db_(db),
        ids_(ids),
        clock_(clock),
        options_(options) {}

  class Turn;
  Result<void> recover();
  Result<void> store(const UploadRow& row);
  Result<void> take(UploadRow& row, FileWriter& file, std::optional<tus::Checksum>& checksum,
                    http::BodyReader& body, bool& mismatch);
  Result<void> publish(UploadRow& row);
  Result<void> discard(const UploadRow& row);
  void sweep();
  void run();

  Files& files_;
  Publishing& publishing_;
  const Directory& staging_;
  db::Database& db_;
  IdSource& ids_;
  const Clock& clock_;
  const Options& options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::map<std::string, std::unique_ptr<Reservation>, std::less<>> reservations_;
  std::map<std::string, bool, std::less<>> busy_;
  std::thread sweeper_;
};

}  // namespace lathe::files
