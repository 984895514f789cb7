#pragma once

#include <sys/stat.h>

#include <string>

#include "base/directory.h"

/// Shared by the files that implement Directory.
namespace lathe {

FileInfo to_info(const struct stat& st);
/// A failed system call on `path`, in words for the user who sent the path.
Error path_error(const Path& path, int error_number);

/// An entry's own state, and its name as it is on the disk: normalised, or else as sent.
struct FoundEntry {
  std::string name;
  struct stat info {};
};
/// Looks for path's last component in the open folder `parent`, following nothing.
Result<FoundEntry> find_entry(int parent, const Path& path);

}  // namespace lathe
