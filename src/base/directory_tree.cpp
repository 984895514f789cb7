#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/directory.h"
#include "base/directory_entry.h"
#include "base/tree_reader.h"

namespace lathe {

namespace {

constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
constexpr std::size_t kCopyStep = 64U << 20;  // between two looks at the progress callback

/// Copies what `from` holds, from the start, sharing blocks where the file system can.
Result<void> copy_bytes(int from, int to, const std::function<bool(std::uint64_t)>& progress) {
  bool in_kernel = true;
  std::string buffer;
  while (true) {
    ssize_t got = 0;
    if (in_kernel) {
      got = copy_file_range(from, nullptr, to, nullptr, kCopyStep, 0);
      if (got < 0 && errno != ENOSPC && errno != EDQUOT && errno != EIO && errno != EINTR) {
        in_kernel = false;  // another file system, or one that cannot
        continue;
      }
    } else {
      buffer.resize(1 << 20);
      got = ::read(from, buffer.data(), buffer.size());
      if (got > 0) TRY(write_all(to, std::string_view(buffer.data(), static_cast<std::size_t>(got))));
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("copy", errno);
    if (got == 0) return {};
    if (!progress(static_cast<std::uint64_t>(got)))
      return Error{Code::cancelled, {"复制已取消", "the copy was cancelled"}};
  }
}

/// One copy under way: the destination's folders are found by path, beneath its root.
class Copier {
 public:
  Copier(const Directory& source, const Path& from, const Directory& target, const Path& to,
         const Directory::CopyOptions& options)
      : source_(source), from_(from), target_(target), to_(to), options_(options) {}

  Result<TreeSize> run() {
    const FileInfo info = TRY(source_.stat(from_));
    if (info.type == FileType::directory) {
      TRY(copy_folder());
    } else {
      TRY(copy_file(TRY(source_.open_file(from_, options_.links)), to_, info.mode));
    }
    return done_;
  }

 private:
  Result<void> copy_folder() {
    TRY(make_folder(to_));
    Directory top = TRY(source_.at(from_, options_.links));
    Fd fd(openat(top.fd(), ".", kFolder));
    if (!fd) return path_error(from_, errno);
    TreeReader reader(std::move(fd));
    while (true) {
      const TreeReader::Event event = TRY(reader.next());
      if (event == TreeReader::Event::end) return {};
      if (event == TreeReader::Event::leave) continue;
      // Made by a job, the name may be one that no request could have sent.
      const Path below = TRY(Path::parse(reader.path(), from_.field()));
      const Path source = from_ / below;
      const Path target = to_ / below;
      if (event == TreeReader::Event::enter) {
        TRY(make_folder(target));
      } else if (S_ISREG(reader.info().st_mode)) {
        Fd file(
            openat(reader.parent(), reader.name().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
        if (!file) {
          if (errno == ENOENT) continue;
          return path_error(source, errno);
        }
        TRY(copy_file(std::move(file), target, reader.info().st_mode & 0777));
      } else if (S_ISLNK(reader.info().st_mode) && options_.links == Links::follow) {
        const FileInfo behind = TRY(source_.stat(source));
        TRY(copy_file(TRY(source_.open_file(source)), target, behind.mode));
      } else {
        return path_error(source, S_ISLNK(reader.info().st_mode) ? ELOOP : EACCES);
      }
    }
  }

  Result<void> make_folder(const Path& path) {
    const bool made = TRY(target_.make_directories(path, 0755, options_.owner));
    if (!made) return path_error(path, EEXIST);
    ++done_.inodes;
    return {};
  }

  Result<void> copy_file(Fd from, const Path& to, std::uint32_t mode) {
    struct stat st {};
    if (fstat(from.get(), &st) != 0 || !S_ISREG(st.st_mode)) return path_error(to, EACCES);
    Fd file = TRY(target_.create_file(to, mode & 0777, options_.owner));
    TRY(copy_bytes(from.get(), file.get(), [this](std::uint64_t more) {
      done_.bytes += more;
      return !options_.progress || options_.progress(done_);
    }));
    ++done_.files;
    ++done_.inodes;
    if (options_.progress && !options_.progress(done_))
      return Error{Code::cancelled, {"复制已取消", "the copy was cancelled"}};
    return {};
  }

  const Directory& source_;
  const Path& from_;
  const Directory& target_;
  const Path& to_;
  const Directory::CopyOptions& options_;
  TreeSize done_;
};

/// Removes what the folder holds; what appears meanwhile may stay.
Result<void> empty_folder(Fd top, const Path& path) {
  TreeReader reader(std::move(top));
  while (true) {
    const TreeReader::Event event = TRY(reader.next());
    if (event == TreeReader::Event::end) return {};
    if (event == TreeReader::Event::enter) continue;
    const int flags = event == TreeReader::Event::leave ? AT_REMOVEDIR : 0;
    if (unlinkat(reader.parent(), reader.name().c_str(), flags) == 0) continue;
    if (errno != ENOENT && errno != ENOTEMPTY) return path_error(path, errno);
  }
}

}  // namespace

Result<void> Directory::walk(const Path& path, const Visit& visit) const {
  Fd fd = TRY(open_beneath(path, kFolder, Links::follow));
  TreeReader reader(std::move(fd));
  while (true) {
    const TreeReader::Event event = TRY(reader.next());
    if (event == TreeReader::Event::end) return {};
    if (event == TreeReader::Event::leave) continue;
    if (!visit(reader.path(), to_info(reader.info()))) return {};
  }
}

Result<TreeSize> Directory::measure(const Path& path) const {
  TreeSize size;
  const FileInfo top = TRY(stat(path));
  ++size.inodes;
  auto count = [&](std::string_view, const FileInfo& info) {
    ++size.inodes;
    if (info.type == FileType::file) ++size.files;
    size.bytes += info.size;
    return true;
  };
  if (top.type == FileType::directory) {
    TRY(walk(path, count));
  } else {
    size.files = top.type == FileType::file;
    size.bytes = top.size;
  }
  return size;
}

Result<TreeSize> Directory::copy_tree(const Path& from, const Directory& to_root, const Path& to,
                                      const CopyOptions& options) const {
  if (&to_root == this && from.contains(to)) return path_error(to, EINVAL);
  return Copier(*this, from, to_root, to, options).run();
}

Result<void> Directory::remove_tree(const Path& path) const {
  if (path.is_root()) {
    Fd top(openat(fd_.get(), ".", kFolder));
    if (!top) return path_error(path, errno);
    return empty_folder(std::move(top), path);
  }
  auto parent = open_parent(path);
  if (!parent && parent.error().code == Code::not_found) return {};
  const Fd held = TRY(std::move(parent));
  const int folder = held.get();
  auto found = find_entry(folder, path);
  if (!found && found.error().code == Code::not_found) return {};
  if (!found) return found.error();
  const bool is_folder = S_ISDIR(found->info.st_mode);
  // Something may go on writing into the tree while it is removed: a few rounds, then it is told.
  for (int round = 0; round < 8; ++round) {
    if (is_folder) {
      Fd top(openat(folder, found->name.c_str(), kFolder | O_NOFOLLOW));
      if (!top) return errno == ENOENT ? Result<void>() : path_error(path, errno);
      TRY(empty_folder(std::move(top), path));
    }
    if (unlinkat(folder, found->name.c_str(), is_folder ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT)
      return {};
    if (errno != ENOTEMPTY) return path_error(path, errno);
  }
  return path_error(path, ENOTEMPTY);
}

}  // namespace lathe
