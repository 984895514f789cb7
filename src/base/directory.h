#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/result.h"

namespace lathe {

/// Whom new files belong to; unset: the server itself. Without the right to change owners (an unprivileged
/// server) it is ignored.
struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

enum class FileType { file, directory, link, other };

struct FileInfo {
  FileType type = FileType::file;
  std::uint64_t size = 0;  ///< bytes, as read; of anything but a file: 0
  std::uint64_t disk = 0;  ///< bytes it takes on the disk
  std::uint32_t mode = 0;  ///< permission bits
  Time modified{};
  std::uint64_t inode = 0;
  std::uint64_t device = 0;
};

struct DirectoryEntry {
  std::string name;  ///< as on the disk: a job may have made one that is not valid UTF-8
  FileInfo info;     ///< of the entry itself; links are not followed
};

/// What a tree holds. Directories count as inodes, as file systems count them.
struct TreeSize {
  std::uint64_t bytes = 0;  ///< sum of the files' sizes; a file with several names counts at each
  std::uint64_t files = 0;
  std::uint64_t inodes = 0;
};

/// What is done about symbolic links inside the tree. A link that leaves the root is an error either way.
enum class Links { follow, refuse };

/// A root folder, held open: everything is found beneath it by openat2(RESOLVE_BENEATH), so that no spelling
/// of a path and no link planted inside it, even while a call runs, leads out of it. Safe from any thread;
/// calls block. Errors name the path's field: not_found, already_exists, permission_denied,
/// failed_precondition (a folder where a file is wanted, or the reverse; a folder that is not empty),
/// invalid_argument (leads out, too long), storage_exhausted.
class Directory {
 public:
  Directory() = default;
  /// Opens the folder `host_path` of this machine. No user's text ever belongs here.
  static Result<Directory> open(const std::string& host_path);
  /// The same; makes it, and its parents, where absent.
  static Result<Directory> create(const std::string& host_path, mode_t mode = 0700);

  /// A root of its own: nothing above it is reachable through it.
  Result<Directory> at(const Path& path, Links links = Links::follow) const;
  Result<Directory> clone() const;
  /// Lives as long as the Directory.
  int fd() const { return fd_.get(); }
  /// Where the root is now, for mounts and processes (/proc/self/fd). Empty if it was removed.
  std::string host_path() const;

  /// A regular file for reading. Pipes and devices are refused, never waited for.
  Result<Fd> open_file(const Path& path, Links links = Links::follow) const;
  /// A whole small file; too_large beyond `limit` bytes.
  Result<std::string> read_file(const Path& path, std::size_t limit = 1 << 20) const;
  Result<FileInfo> stat(const Path& path, Links links = Links::follow) const;
  bool exists(const Path& path) const;
  /// One page of a folder: the `limit` entries that follow the name `after`, in byte order. Memory is bounded
  /// by `limit`, whatever the folder holds.
  Result<std::vector<DirectoryEntry>> list(const Path& path, std::string_view after, std::size_t limit) const;

  /// Makes the folder and the missing ones above it. True if it was not there.
  Result<bool> make_directories(const Path& path, mode_t mode = 0755, std::optional<Owner> owner = {},
                                Links links = Links::follow) const;
  /// Writes a whole file so that after a crash there is the old one or the new one: temporary file, fsync,
  /// rename, fsync of the folder. Missing folders are made.
  Result<void> write_file(const Path& path, std::string_view bytes, mode_t mode = 0644,
                          std::optional<Owner> owner = {}) const;
  /// A new file, for writing; already_exists if there is one.
  Result<Fd> create_file(const Path& path, mode_t mode = 0644, std::optional<Owner> owner = {}) const;

  enum class Replace {
    never,  ///< already_exists if there is something at the destination
    files,  ///< a file there is replaced atomically; a folder there is failed_precondition
  };
  /// Moves an entry, never following its last component, also into another root of the same file system. The
  /// destination's folder must exist.
  Result<void> rename(const Path& from, const Directory& to_root, const Path& to, Replace replace) const;
  Result<void> rename(const Path& from, const Path& to, Replace replace) const {
    return rename(from, *this, to, replace);
  }
  /// Gives a file a second name, in this or another root of the same file system. already_exists if taken.
  Result<void> link(const Path& from, const Directory& to_root, const Path& to) const;
  /// Removes a file or a link.
  Result<void> remove_file(const Path& path) const;
  /// Removes a file or a folder with all it holds, following nothing; nothing there is no error. The root
  /// itself stays, empty.
  Result<void> remove_tree(const Path& path) const;
  /// Makes renames and new names in this folder durable.
  Result<void> sync(const Path& path = {}) const;
  /// Everything written to the root's file system so far is durable when this returns.
  Result<void> sync_filesystem() const;

  /// Called for every entry, a folder before what it holds; `path` is relative to the folder walked. False
  /// ends the walk.
  using Visit = std::function<bool(std::string_view path, const FileInfo& info)>;
  /// Walks a tree of any size and depth with bounded memory, following no links.
  Result<void> walk(const Path& path, const Visit& visit) const;
  Result<TreeSize> measure(const Path& path) const;

  struct CopyOptions {
    std::optional<Owner> owner;
    /// Links to files are copied as the files they lead to inside the source's root; with `refuse`, any link
    /// is an error. Links to folders are always an error.
    Links links = Links::follow;
    /// Sees the bytes and files copied so far; false cancels the copy (Error cancelled).
    std::function<bool(const TreeSize& done)> progress;
  };
  /// Copies a file or a tree to `to`, which must not exist (its folder must), sharing blocks where the file
  /// system can. What was copied before an error stays; the caller removes it. Not durable before sync.
  Result<TreeSize> copy_tree(const Path& from, const Directory& to_root, const Path& to,
                             const CopyOptions& options) const;

 private:
  explicit Directory(Fd fd) : fd_(std::move(fd)) {}
  Result<Fd> open_beneath(const Path& path, int flags, Links links, mode_t mode = 0) const;
  /// The folder that holds path's last component.
  Result<Fd> open_parent(const Path& path, Links links = Links::follow) const;
  Fd fd_;
};

/// Writes all of it. Errors as system_error.
Result<void> write_all(int fd, std::string_view bytes);
/// Gives an open file to `owner`; silently not, where the server may not.
void give_to(int fd, std::optional<Owner> owner);

}  // namespace lathe
