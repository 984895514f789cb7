#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/directory.h"
#include "base/file_writer.h"
#include "files/files.h"
#include "files/publication.h"

namespace lathe::files {

/// Publishes to users' roots, one publication at a time for each user, so that what one request brings
/// appears together.
class Publishing {
 public:
  explicit Publishing(Files& files) : files_(files) {}
  Result<Published> publish(const Directory& stage, const Publication& publication, const Root& root,
                            std::string_view field);

 private:
  Files& files_;
  std::mutex locks_[64];  ///< by a hash of the user
};

/// The body of 1.1 and 1.2 on its way to the disk: files are staged as they come, whatever order the parts
/// have, and appear together at the end. If it is destroyed before, nothing is left. Used by one thread.
class FolderUpload {
 public:
  /// `stage_root` is the folder for staging; `id` names this upload's own folder there. The bytes count as
  /// `charged_to`'s.
  static Result<std::unique_ptr<FolderUpload>> begin(Files& files, Publishing& publishing,
                                                     const Directory& stage_root, std::string id,
                                                     std::string_view charged_to, std::size_t max_parts);
  ~FolderUpload();

  /// Starts the next file; `file_name` may be a relative path. `field` names the part in errors.
  Result<void> begin_file(std::string_view file_name, std::string_view field);
  Result<void> write(std::string_view bytes);
  Result<void> end_file();
  std::size_t file_count() const { return names_.size(); }
  /// Durable and visible when this returns.
  Result<void> publish(const Root& root, const Path& folder);

 private:
  FolderUpload(Files& files, Publishing& publishing, const Directory& stage_root, std::string id,
               std::size_t max_parts)
      : files_(files),
        publishing_(publishing),
        stage_root_(stage_root),
        id_(std::move(id)),
        max_parts_(max_parts) {}
  Result<void> reserve(std::uint64_t bytes);

  Files& files_;
  Publishing& publishing_;
  const Directory& stage_root_;
  const std::string id_;
  const std::size_t max_parts_;
  Directory stage_;
  std::string charged_to_;
  std::unique_ptr<Reservation> reservation_;
  std::uint64_t reserved_ = 0, written_ = 0;
  std::vector<Path> names_;
  FileWriter current_;
  bool whole_sync_ = false;
};

}  // namespace lathe::files
