#include "base/tree_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lathe {

namespace {

constexpr std::size_t kHeldOpen = 32;
constexpr std::size_t kBuffer = 16 * 1024;
constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;

Error moved() {
  return {Code::unavailable,
          {"文件夹在读取期间被移动，请重试", "a folder was moved while it was read; try again"}};
}

}  // namespace

TreeReader::TreeReader(Fd top) {
  Frame& frame = frames_.emplace_back();
  frame.fd = std::move(top);
  if (fstat(frame.fd.get(), &frame.info) == 0) {
    frame.device = frame.info.st_dev;
    frame.inode = frame.info.st_ino;
  }
}

Result<bool> TreeReader::fill(Frame& frame) {
  if (frame.at < frame.filled) return true;
  frame.buffer.resize(kBuffer);
  const long got = syscall(SYS_getdents64, frame.fd.get(), frame.buffer.data(), frame.buffer.size());
  if (got < 0 && errno != ENOENT) return system_error("getdents", errno);  // ENOENT: the folder was removed
  frame.at = 0;
  frame.filled = got < 0 ? 0 : static_cast<std::size_t>(got);
  return got > 0;
}

Result<void> TreeReader::push() {
  Fd fd(openat(frames_.back().fd.get(), name_.c_str(), kFolder));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) {  // replaced meanwhile: nothing to look into
      skip_ = true;
      return {};
    }
    return system_error("open " + path_, errno);
  }
  Frame frame;
  frame.fd = std::move(fd);
  frame.name = name_;
  frame.info = info_;
  frame.path_length = path_.size();
  struct stat now {};
  if (fstat(frame.fd.get(), &now) != 0) return system_error("stat " + path_, errno);
  frame.device = now.st_dev;
  frame.inode = now.st_ino;
  frames_.push_back(std::move(frame));
  if (frames_.size() > kHeldOpen) {
    Frame& far = frames_[frames_.size() - 1 - kHeldOpen];
    far.fd.reset();
    far.buffer = {};
    far.at = far.filled = 0;
  }
  return {};
}

Result<void> TreeReader::reopen(const Frame& child) {
  Frame& frame = frames_.back();
  if (frame.fd) return {};
  frame.fd = Fd(openat(child.fd.get(), "..", kFolder));
  if (!frame.fd) return system_error("open ..", errno);
  struct stat now {};
  if (fstat(frame.fd.get(), &now) != 0) return system_error("stat ..", errno);
  if (now.st_dev != frame.device || now.st_ino != frame.inode) return moved();
  if (lseek(frame.fd.get(), frame.offset, SEEK_SET) < 0) return system_error("lseek", errno);
  return {};
}

Result<TreeReader::Event> TreeReader::next() {
  if (entered_) {
    entered_ = false;
    if (!skip_) TRY(push());
    if (skip_) left_ = true;
    skip_ = false;
    if (left_) {
      left_ = false;
      return Event::leave;
    }
  }
  while (true) {
    Frame& frame = frames_.back();
    if (!TRY(fill(frame))) {
      if (frames_.size() == 1) return Event::end;
      Frame child = std::move(frames_.back());
      frames_.pop_back();
      TRY(reopen(child));
      name_ = child.name;
      info_ = child.info;
      path_.resize(child.path_length);
      return Event::leave;
    }
    struct Dirent {  // linux_dirent64, which no header declares
      std::uint64_t inode;
      std::int64_t offset;
      std::uint16_t length;
      std::uint8_t type;
    };
    Dirent head{};
    const char* at = frame.buffer.data() + frame.at;
    std::memcpy(&head, at, sizeof head);
    const char* entry_name = at + 19;
    frame.at += head.length;
    frame.offset = head.offset;
    if (std::strcmp(entry_name, ".") == 0 || std::strcmp(entry_name, "..") == 0) continue;
    name_ = entry_name;
    path_.resize(frame.path_length);
    if (!path_.empty()) path_ += '/';
    path_ += name_;
    if (fstatat(frame.fd.get(), name_.c_str(), &info_, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return system_error("stat " + path_, errno);
    }
    entered_ = S_ISDIR(info_.st_mode);
    return entered_ ? Event::enter : Event::entry;
  }
}

}  // namespace lathe
