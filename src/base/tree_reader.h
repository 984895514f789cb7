#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace lathe {

/// Walks a tree depth first, following no links, with bounded memory and descriptors however wide and deep it
/// is: only the deepest 32 folders are held open, the others are found again through `..` and must then be
/// the same folders. Entries that vanish meanwhile are passed over.
class TreeReader {
 public:
  enum class Event {
    entry,  ///< anything that is not a folder
    enter,  ///< a folder, before what it holds; skip() passes over that
    leave,  ///< a folder, after what it holds
    end,
  };
  /// Takes the opened top folder; it is not itself an event.
  explicit TreeReader(Fd top);

  Result<Event> next();
  /// After `enter`: do not look into this folder.
  void skip() { skip_ = true; }

  /// The folder that holds the entry of the last event, and the entry's name and state there. Valid until
  /// next.
  int parent() const { return frames_.back().fd.get(); }
  const std::string& name() const { return name_; }
  const struct stat& info() const { return info_; }
  /// Path from the top. Grows beyond PATH_MAX where the tree does.
  const std::string& path() const { return path_; }

 private:
  struct Frame {
    Fd fd;
    std::string name;
    dev_t device = 0;
    ino_t inode = 0;
    struct stat info {};
    std::size_t path_length = 0;
    std::vector<char> buffer;
    std::size_t at = 0, filled = 0;
    off_t offset = 0;  ///< the kernel's cookie after the last entry handed out
  };
  Result<void> push();
  Result<void> reopen(const Frame& child);
  Result<bool> fill(Frame& frame);

  std::vector<Frame> frames_;
  std::string name_;
  std::string path_;
  struct stat info_ {};
  bool entered_ = false;
  bool left_ = false;
  bool skip_ = false;
};

}  // namespace lathe
