#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace lathe::app {

/// The directory in which a server keeps everything, locked as long as this lives, so that two servers cannot
/// share it. The lock is not inherited by what the server starts.
///
///     lock                    held by the server; its process id is in it
///     lathe.db (-wal, -shm)   the database
///     initial-admin-password  until that password is changed
///     users                   the users' files
///     engine                  what is known of the runs on this machine
class DataDirectory {
 public:
  /// Makes it (mode 0700) where absent. Errors: failed_precondition when another server has it.
  static Result<DataDirectory> open(const std::string& path);
  DataDirectory(DataDirectory&& other) noexcept;
  DataDirectory& operator=(DataDirectory&&) = delete;
  ~DataDirectory();

  /// Absolute, without symbolic links.
  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  DataDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}
  std::string path_;
  int lock_ = -1;
};

}  // namespace lathe::app
