#include "base/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <queue>

#include "base/directory_entry.h"
#include "base/ids.h"

namespace lathe {

namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
constexpr int kEntry = O_PATH | O_CLOEXEC;  // looks at an entry without opening it: a pipe would block

Fd open_at(int root, const std::string& path, int flags, mode_t mode, Links links) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  if (links == Links::refuse) how.resolve |= RESOLVE_NO_SYMLINKS;
  // The kernel says EAGAIN when a rename elsewhere made it unsure whether the path stays beneath the root.
  for (int attempt = 0; attempt < 100; ++attempt) {
    Fd fd(static_cast<int>(syscall(SYS_openat2, root, path.empty() ? "." : path.c_str(), &how, sizeof how)));
    if (fd || (errno != EAGAIN && errno != EINTR)) return fd;
  }
  return Fd();
}

std::string temporary_name() {
  return ".lathe-" + random_hex(12);
}

std::string_view last_component(std::string_view path) {
  const auto slash = path.rfind('/');
  return path.substr(slash == std::string_view::npos ? 0 : slash + 1);
}

Result<FileInfo> info_of(int fd, const Path& path) {
  struct stat st {};
  if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) return path_error(path, errno);
  return to_info(st);
}

}  // namespace

FileInfo to_info(const struct stat& st) {
  FileInfo info;
  info.type = S_ISREG(st.st_mode)   ? FileType::file
              : S_ISDIR(st.st_mode) ? FileType::directory
              : S_ISLNK(st.st_mode) ? FileType::link
                                    : FileType::other;
  info.size = S_ISREG(st.st_mode) ? static_cast<std::uint64_t>(st.st_size) : 0;
  info.disk = static_cast<std::uint64_t>(st.st_blocks) * 512;
  info.mode = st.st_mode & 07777;
  info.modified = Time(std::chrono::milliseconds(st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1'000'000));
  info.inode = st.st_ino;
  info.device = st.st_dev;
  return info;
}

Result<FoundEntry> find_entry(int parent, const Path& path) {
  FoundEntry found;
  for (const std::string* text : {&path.text(), &path.spelling()}) {
    if (text->empty()) continue;
    found.name = last_component(*text);
    if (fstatat(parent, found.name.c_str(), &found.info, AT_SYMLINK_NOFOLLOW) == 0) return found;
    if (errno != ENOENT) break;
  }
  return path_error(path, errno);
}

Error path_error(const Path& path, int error_number) {
  const std::string quoted = "“" + (path.is_root() ? std::string("/") : path.text()) + "”";
  auto with = [&](Code code, Text text) {
    return Error{code, {text.zh + "：" + quoted, text.en + ": " + quoted}, {{path.field(), std::move(text)}}};
  };
  switch (error_number) {
    case ENOENT:
      return with(Code::not_found, {"路径不存在", "there is nothing at this path"});
    case EEXIST:
      return with(Code::already_exists,
                  {"已存在同名的文件或文件夹", "there is something at this path already"});
    case ENOTDIR:
      return with(Code::failed_precondition, {"不是文件夹", "is not a folder"});
    case EISDIR:
      return with(Code::failed_precondition, {"是文件夹，不是文件", "is a folder, not a file"});
    case ENOTEMPTY:
      return with(Code::failed_precondition, {"文件夹非空", "is a folder that is not empty"});
    case EACCES:
    case EPERM:
    case EROFS:
      return with(Code::permission_denied, {"没有访问权限", "may not be accessed"});
    case EXDEV:
    case ELOOP:
      return with(Code::invalid_argument,
                  {"经由符号链接，不能访问", "leads through a link out of its folder"});
    case ENAMETOOLONG:
      return with(Code::invalid_argument, {"路径过长", "is too long a path"});
    case EINVAL:
      return with(Code::invalid_argument, {"不能移动到自身之内", "cannot be moved into itself"});
    default:
      return system_error("“" + path.text() + "”", error_number);
  }
}

Result<void> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return system_error("write", errno);
    }
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return {};
}

void give_to(int fd, std::optional<Owner> owner) {
  if (!owner) return;
  if (fchown(fd, owner->uid, owner->gid) != 0) return;  // an unprivileged server keeps what it makes
}

Result<Directory> Directory::open(const std::string& host_path) {
  Fd fd(::open(host_path.c_str(), kFolder));
  if (!fd) return system_error("open " + host_path, errno);
  return Directory(std::move(fd));
}

Result<Directory> Directory::create(const std::string& host_path, mode_t mode) {
  for (std::size_t at = host_path.find('/', 1); at != std::string::npos; at = host_path.find('/', at + 1))
    if (mkdir(host_path.substr(0, at).c_str(), mode | 0711) != 0 && errno != EEXIST)
      return system_error("mkdir " + host_path.substr(0, at), errno);
  if (mkdir(host_path.c_str(), mode) != 0 && errno != EEXIST)
    return system_error("mkdir " + host_path, errno);
  return open(host_path);
}

Result<Fd> Directory::open_beneath(const Path& path, int flags, Links links, mode_t mode) const {
  Fd fd = open_at(fd_.get(), path.text(), flags, mode, links);
  if (!fd && errno == ENOENT && !path.spelling().empty())
    fd = open_at(fd_.get(), path.spelling(), flags & ~O_CREAT, 0, links);
  if (!fd) return path_error(path, errno);
  return fd;
}

Result<Fd> Directory::open_parent(const Path& path, Links links) const {
  if (path.is_root()) return path_error(path, EACCES);
  return open_beneath(path.parent(), kFolder, links);
}

Result<Directory> Directory::at(const Path& path, Links links) const {
  return Directory(TRY(open_beneath(path, kFolder, links)));
}

Result<Directory> Directory::clone() const {
  Fd fd(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3));
  if (!fd) return system_error("dup", errno);
  return Directory(std::move(fd));
}

std::string Directory::host_path() const {
  const std::string link = "/proc/self/fd/" + std::to_string(fd_.get());
  std::string out(8192, '\0');
  const ssize_t length = readlink(link.c_str(), out.data(), out.size());
  out.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  return out.ends_with(" (deleted)") ? "" : out;
}

Result<Fd> Directory::open_file(const Path& path, Links links) const {
  Fd fd = TRY(open_beneath(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, links));
  const FileInfo info = TRY(info_of(fd.get(), path));
  if (info.type == FileType::directory) return path_error(path, EISDIR);
  if (info.type != FileType::file) return path_error(path, EACCES);
  return fd;
}

Result<std::string> Directory::read_file(const Path& path, std::size_t limit) const {
  Fd fd = TRY(open_file(path));
  std::string out;
  char piece[65536];
  while (true) {
    const ssize_t got = ::read(fd.get(), piece, sizeof piece);
    if (got < 0) return path_error(path, errno);
    if (got == 0) return out;
    out.append(piece, static_cast<std::size_t>(got));
    if (out.size() > limit) {
      const std::string most = std::to_string(limit);
      return Error{Code::too_large,
                   {"文件过大：" + path.text(), "the file is too large: " + path.text()},
                   {{path.field(), {"不能超过 " + most + " 字节", "must not exceed " + most + " bytes"}}}};
    }
  }
}

Result<FileInfo> Directory::stat(const Path& path, Links links) const {
  // With `refuse`, the entry itself may be a link, which is shown as one; those above it may not.
  if (links == Links::refuse && !path.is_root()) {
    Fd parent = TRY(open_parent(path, links));
    return to_info(TRY(find_entry(parent.get(), path)).info);
  }
  Fd fd = TRY(open_beneath(path, kEntry, links));
  return info_of(fd.get(), path);
}

bool Directory::exists(const Path& path) const {
  return stat(path).ok();
}

Result<std::vector<DirectoryEntry>> Directory::list(const Path& path, std::string_view after,
                                                    std::size_t limit) const {
  Fd fd = TRY(open_beneath(path, kFolder, Links::follow));
  const int folder = fd.get();
  std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(folder), closedir);
  if (!stream) return path_error(path, errno);
  fd.release();
  std::priority_queue<std::string> smallest;
  while (const dirent* entry = readdir(stream.get())) {
    const std::string_view name(entry->d_name);
    if (name == "." || name == ".." || name <= after) continue;
    if (smallest.size() == limit && !smallest.empty() && name >= smallest.top()) continue;
    smallest.emplace(name);
    if (smallest.size() > limit) smallest.pop();
  }
  std::vector<DirectoryEntry> out;
  for (; !smallest.empty(); smallest.pop()) {
    struct stat st {};
    if (fstatat(folder, smallest.top().c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;  // just removed
    out.push_back({smallest.top(), to_info(st)});
  }
  std::reverse(out.begin(), out.end());
  return out;
}

Result<bool> Directory::make_directories(const Path& path, mode_t mode, std::optional<Owner> owner,
                                         Links links) const {
  if (path.is_root()) return false;
  if (auto there = open_beneath(path, kFolder, links); there.ok()) {
    // A folder that is still the server's own was being made when the server was killed.
    struct stat info {};
    const bool unfinished =
        owner && owner->uid != geteuid() && fstat(there->get(), &info) == 0 && info.st_uid == geteuid();
    if (unfinished) give_to(there->get(), owner);
    return false;
  }
  TRY(make_directories(path.parent(), mode, owner, links));
  Fd parent = TRY(open_parent(path, links));
  const std::string name(path.name());
  if (mkdirat(parent.get(), name.c_str(), mode) != 0) {
    if (errno != EEXIST) return path_error(path, errno);
    TRY(open_beneath(path, kFolder, links));  // made meanwhile by another, or a file in its place
    return false;
  }
  Fd folder(openat(parent.get(), name.c_str(), kFolder | O_NOFOLLOW));
  if (!folder) return path_error(path, errno);
  if (fchmod(folder.get(), mode) != 0) return path_error(path, errno);  // whatever the umask
  give_to(folder.get(), owner);
  return true;
}

Result<Fd> Directory::create_file(const Path& path, mode_t mode, std::optional<Owner> owner) const {
  Fd parent = TRY(open_parent(path));
  const std::string name(path.name());
  Fd fd(openat(parent.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return path_error(path, errno);
  give_to(fd.get(), owner);
  return fd;
}

Result<void> Directory::write_file(const Path& path, std::string_view bytes, mode_t mode,
                                   std::optional<Owner> owner) const {
  TRY(make_directories(path.parent(), 0755, owner));
  Fd parent = TRY(open_parent(path));
  const std::string name(path.name());
  const std::string temporary = temporary_name();
  auto write = [&]() -> Result<void> {
    Fd fd(openat(parent.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (!fd) return path_error(path, errno);
    give_to(fd.get(), owner);
    if (fchmod(fd.get(), mode) != 0) return path_error(path, errno);
    TRY(write_all(fd.get(), bytes));
    if (fsync(fd.get()) != 0) return path_error(path, errno);
    if (renameat(parent.get(), temporary.c_str(), parent.get(), name.c_str()) != 0)
      return path_error(path, errno);
    if (fsync(parent.get()) != 0) return path_error(path, errno);
    return {};
  };
  Result<void> written = write();
  if (!written) unlinkat(parent.get(), temporary.c_str(), 0);
  return written;
}

Result<void> Directory::rename(const Path& from, const Directory& to_root, const Path& to,
                               Replace replace) const {
  Fd from_parent = TRY(open_parent(from));
  Fd to_parent = TRY(to_root.open_parent(to));
  const FoundEntry found = TRY(find_entry(from_parent.get(), from));
  const std::string to_name(to.name());
  const unsigned flags = replace == Replace::never || S_ISDIR(found.info.st_mode) ? RENAME_NOREPLACE : 0;
  if (renameat2(from_parent.get(), found.name.c_str(), to_parent.get(), to_name.c_str(), flags) == 0)
    return {};
  return path_error(to, errno);
}

Result<void> Directory::link(const Path& from, const Directory& to_root, const Path& to) const {
  Fd from_parent = TRY(open_parent(from));
  Fd to_parent = TRY(to_root.open_parent(to));
  const FoundEntry found = TRY(find_entry(from_parent.get(), from));
  const std::string to_name(to.name());
  if (linkat(from_parent.get(), found.name.c_str(), to_parent.get(), to_name.c_str(), 0) != 0)
    return path_error(to, errno);
  return {};
}

Result<void> Directory::remove_file(const Path& path) const {
  Fd parent = TRY(open_parent(path));
  const FoundEntry found = TRY(find_entry(parent.get(), path));
  if (unlinkat(parent.get(), found.name.c_str(), 0) != 0) return path_error(path, errno);
  return {};
}

Result<void> Directory::sync(const Path& path) const {
  Fd fd = TRY(open_beneath(path, kFolder, Links::follow));
  if (fsync(fd.get()) != 0) return path_error(path, errno);
  return {};
}

Result<void> Directory::sync_filesystem() const {
  if (syncfs(fd_.get()) != 0) return system_error("syncfs", errno);
  return {};
}

}  // namespace lathe
