#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/atomic_file.h"
#include "base/directory.h"
#include "base/fd.h"
#include "engines/gpu/device_nodes.h"
#include "engines/process/sandbox.h"
#include "engines/supervised/environment.h"

namespace lathe::engines {

namespace {

constexpr std::uint64_t kSafe = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;

Error failed(const std::string& what) {
  return system_error(what, errno);
}

/// The same for the steps that need the process's root to be a mount point.
Error failed_at_root(const std::string& step) {
  return errno == EINVAL ? fixed_root(step) : failed(step);
}

Fd open_beneath(int folder, const std::string& path, std::uint64_t flags, std::uint64_t resolve) {
  struct open_how how {};
  how.flags = flags | O_CLOEXEC;
  how.resolve = resolve;
  return Fd(static_cast<int>(::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how)));
}

bool is_directory(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
}

Result<void> set_attributes(int tree, std::uint64_t attributes, bool recursive) {
  struct mount_attr change {};
  change.attr_set = attributes;
  const unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  if (::mount_setattr(tree, "", flags, &change, sizeof change) != 0) return failed("mount_setattr");
  return {};
}

/// A copy of the host's tree at `fd`, attached to nothing yet.
Result<Fd> copy_tree(int fd, std::uint64_t attributes, bool recursive) {
  Fd tree(::open_tree(fd, "",
                      AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0)));
  if (!tree) return failed("open_tree");
  TRY(set_attributes(tree.get(), attributes, recursive));
  return tree;
}

/// A new file system, attached to nothing yet.
Result<Fd> new_filesystem(const char* type, std::vector<std::pair<const char*, std::string>> options,
                          std::uint64_t attributes) {
  const Fd context(::fsopen(type, FSOPEN_CLOEXEC));
  if (!context) return failed(fmt::format("fsopen {}", type));
  for (const auto& [key, value] : options)
    if (::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) != 0)
      return failed(fmt::format("{} {}={}", type, key, value));
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return failed(fmt::format("create {}", type));
  Fd tree(::fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!tree) return failed(fmt::format("fsmount {}", type));
  return tree;
}

/// The view under construction. Everything of the host is opened before anything is attached, since what is
/// attached may cover it.
class View {
 public:
  View(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules)
      : plan_(plan), resources_(plan.ranks[rank].resources), rules_(rules) {}

  Result<void> build(const std::string& staging) {
    if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      return failed_at_root("make mounts private");
    TRY(collect_system());
    TRY(collect_devices());
    TRY(collect_mounts());
    TRY(make_root(staging));
    for (auto& piece : pieces_) TRY(attach(piece));
    for (const auto& [target, link] : links_)
      if (::symlinkat(link.c_str(), root_.get(), target.c_str() + 1) != 0 && errno != EEXIST)
        return failed("symlink " + target);
    return seal();
  }

 private:
  struct Piece {
    std::string target;
    Fd tree;
    bool directory = true;
    bool of_plan = false;
    bool sealed = false;  ///< made read-only once everything is in it
  };

  void add(std::string target, Fd tree, bool directory = true) {
    pieces_.push_back({std::move(target), std::move(tree), directory});
  }

  Result<void> add_host(const std::string& path, std::uint64_t attributes, bool recursive) {
    const Fd source(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!source) return {};  // a machine need not have it
    add(path, TRY(copy_tree(source.get(), attributes, recursive || rules_.user_namespace)),
        is_directory(source.get()));
    return {};
  }

  Result<void> collect_system() {
    for (const auto& path : rules_.system_paths) {
      struct stat info {};
      if (::lstat(path.c_str(), &info) != 0) continue;
      if (S_ISLNK(info.st_mode)) {
        char link[PATH_MAX];
        const ssize_t length = ::readlink(path.c_str(), link, sizeof link);
        if (length > 0) links_.emplace_back(path, std::string(link, static_cast<std::size_t>(length)));
        continue;
      }
      TRY(add_host(path, kSafe | MOUNT_ATTR_RDONLY, true));
    }
    TRY(add_host("/sys", kSafe | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC, false));
    TRY(collect_name_resolution());
    for (const auto& path : rules_.hidden_paths) TRY(cover(path));
    add("/tmp", TRY(new_filesystem("tmpfs", {{"mode", "1777"}}, kSafe)));
    links_.emplace_back("/var/tmp", "../tmp");
    return {};
  }

  /// /etc/resolv.conf often leads to /run, which is not shown: then that one file is.
  Result<void> collect_name_resolution() {
    char resolved[PATH_MAX];
    if (!::realpath("/etc/resolv.conf", resolved) || is_shown(resolved)) return {};
    return add_host(resolved, kSafe | MOUNT_ATTR_RDONLY, false);
  }

  bool is_shown(const std::string& path) const {
    for (const auto& top : rules_.system_paths)
      if (path == top || path.starts_with(top + "/")) return true;
    return false;
  }

  Result<void> cover(const std::string& path) {
    char resolved[PATH_MAX];
    if (!::realpath(path.c_str(), resolved) || !is_shown(resolved)) return {};
    struct stat info {};
    if (::stat(resolved, &info) != 0) return {};
    Fd empty = TRY(new_filesystem("tmpfs", {{"mode", "0"}, {"size", "4k"}}, kSafe | MOUNT_ATTR_RDONLY));
    if (S_ISDIR(info.st_mode)) {
      add(resolved, std::move(empty));
      return {};
    }
    const Fd null(::open("/dev/null", O_PATH | O_CLOEXEC));
    add(resolved, TRY(copy_tree(null.get(), kSafe | MOUNT_ATTR_RDONLY, rules_.user_namespace)), false);
    return {};
  }

  Result<void> collect_devices() {
    Fd dev = TRY(
        new_filesystem("tmpfs", {{"mode", "0755"}, {"size", "64k"}}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
    pieces_.push_back({"/dev", std::move(dev), true, false, true});
    std::vector<std::string> nodes = {"null", "zero", "full", "random", "urandom", "tty"};
    for (auto& node : TRY(gpu_device_nodes(resources_.gpus))) nodes.push_back(std::move(node));
    for (const auto& node : nodes)
      TRY(add_host("/dev/" + node, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false));
    add("/dev/pts", TRY(new_filesystem("devpts", {{"ptmxmode", "0666"}, {"mode", "0620"}},
                                       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)));
    links_.emplace_back("/dev/fd", "/proc/self/fd");
    links_.emplace_back("/dev/stdin", "/proc/self/fd/0");
    links_.emplace_back("/dev/stdout", "/proc/self/fd/1");
    links_.emplace_back("/dev/stderr", "/proc/self/fd/2");
    links_.emplace_back("/dev/ptmx", "pts/ptmx");
    if (has_gpu_share(resources_)) {
      const Fd pipes(::open(rules_.mps_directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!pipes) return failed("open " + rules_.mps_directory);
      add(rules_.mps_directory,
          TRY(copy_tree(pipes.get(), kSafe | MOUNT_ATTR_NOEXEC, rules_.user_namespace)));
      return add_host("/dev/shm", kSafe | MOUNT_ATTR_NOEXEC, false);
    }
    std::int64_t shm = resources_.shm_bytes > 0 ? resources_.shm_bytes : resources_.memory_bytes / 2;
    std::vector<std::pair<const char*, std::string>> options = {{"mode", "1777"}};
    if (shm > 0) options.emplace_back("size", std::to_string(shm));
    add("/dev/shm", TRY(new_filesystem("tmpfs", std::move(options), kSafe)));
    return {};
  }

  Result<void> collect_mounts() {
    for (const auto& mount : plan_.mounts) {
      const Fd root(::open(mount.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!root) return unmountable(mount, errno);
      const Fd source = open_beneath(root.get(), mount.path.empty() ? "." : mount.path, O_PATH,
                                     RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
      if (!source) return unmountable(mount, errno);
      struct stat info {};
      if (::fstat(source.get(), &info) != 0 || !(S_ISDIR(info.st_mode) || S_ISREG(info.st_mode)))
        return unmountable(mount, EINVAL);
      Fd tree = TRY(copy_tree(source.get(), kSafe | (mount.writable ? 0 : MOUNT_ATTR_RDONLY), true));
      pieces_.push_back({mount.target, std::move(tree), S_ISDIR(info.st_mode), true});
    }
    return {};
  }

  static Error unmountable(const Mount& mount, int why) {
    const std::string path = mount.path.empty() ? mount.target : mount.path;
    if (why == ENOENT || why == ENOTDIR)
      return {Code::not_found, {"目录或文件不存在：" + path, "no such directory or file: " + path}};
    if (why == EXDEV || why == ELOOP)
      return {
          Code::permission_denied,
          {"符号链接指向允许范围之外：" + path, "a symbolic link leads out of the user's files: " + path}};
    return system_error("mount " + path, why);
  }

  Result<void> make_root(const std::string& staging) {
    root_ = TRY(new_filesystem("tmpfs", {{"mode", "0755"}, {"size", "1m"}}, kSafe));
    if (::move_mount(root_.get(), "", AT_FDCWD, staging.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
      return failed("move_mount " + staging);
    for (const char* directory : {"proc", "run", "var", "home", "mnt"})
      if (::mkdirat(root_.get(), directory, 0755) != 0) return failed("mkdir");
    add("/proc", TRY(new_filesystem("proc", {}, kSafe | MOUNT_ATTR_NOEXEC)));
    TRY(replace_file(root_.get(), ".passwd", passwd(), Durable::no, 0644));
    TRY(replace_file(root_.get(), ".group", group(), Durable::no, 0644));
    return {};
  }

  std::string passwd() const {
    return fmt::format(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        "job:x:{}:{}:job:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        plan_.uid, plan_.gid);
  }
  std::string group() const { return fmt::format("root:x:0:\njob:x:{}:\nnogroup:x:65534:\n", plan_.gid); }

  Result<void> attach(Piece& piece) {
    const Fd target = TRY(make_target(piece));
    if (::move_mount(piece.tree.get(), "", target.get(), "",
                     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
      return failed("mount " + piece.target);
    return {};
  }

  /// Opens the place where the piece goes, making what is missing. Links are not followed: where a mount goes
  /// is said by the plan alone.
  Result<Fd> make_target(const Piece& piece) {
    constexpr std::uint64_t kStrict = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    Fd at(::openat(root_.get(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    std::string_view rest = piece.target;
    while (true) {
      while (rest.starts_with('/')) rest.remove_prefix(1);
      if (rest.empty()) return at;
      const std::string name(rest.substr(0, rest.find('/')));
      rest.remove_prefix(name.size());
      const bool last = rest.find_first_not_of('/') == std::string_view::npos;
      Fd next = open_beneath(at.get(), name, O_PATH, kStrict);
      if (!next && errno == ENOENT) {
        if (last && !piece.directory) {
          Fd made(
              ::openat(at.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
          if (!made) return unplaceable(piece);
          give(made.get(), piece);
        } else {
          if (::mkdirat(at.get(), name.c_str(), 0755) != 0) return unplaceable(piece);
          const Fd made = open_beneath(at.get(), name, O_RDONLY | O_DIRECTORY, kStrict);
          give(made.get(), piece);
        }
        next = open_beneath(at.get(), name, O_PATH, kStrict);
      }
      if (!next) return unplaceable(piece);
      if ((!last || piece.directory) != is_directory(next.get())) {
        errno = last && !piece.directory ? EISDIR : ENOTDIR;
        return unplaceable(piece);
      }
      at = std::move(next);
    }
  }

  void give(int fd, const Piece& piece) const {
    if (piece.of_plan && !rules_.user_namespace)
      give_to(fd, Owner{static_cast<uid_t>(plan_.uid), static_cast<gid_t>(plan_.gid)});
  }

  static Error unplaceable(const Piece& piece) {
    const int why = errno;
    if (why == EROFS)
      return {Code::failed_precondition,
              {"只读目录中没有挂载点：" + piece.target,
               "there is no mount point in a read-only directory: " + piece.target}};
    if (why == ELOOP)
      return {Code::failed_precondition,
              {"挂载点不能经过符号链接：" + piece.target,
               "a mount point must not lie behind a symbolic link: " + piece.target}};
    return system_error("mount at " + piece.target, why);
  }

  Result<void> show_file(const char* made, const char* target) {
    const Fd source(::openat(root_.get(), made, O_PATH | O_CLOEXEC));
    const Fd place(::openat(root_.get(), target, O_PATH | O_CLOEXEC | O_NOFOLLOW));
    if (!source || !place) return {};
    const Fd tree = TRY(copy_tree(source.get(), kSafe | MOUNT_ATTR_RDONLY, false));
    if (::move_mount(tree.get(), "", place.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0)
      return failed(fmt::format("mount {}", target));
    ::unlinkat(root_.get(), made, 0);
    return {};
  }

  Result<void> seal() {
    TRY(show_file(".passwd", "etc/passwd"));
    TRY(show_file(".group", "etc/group"));
    for (const auto& piece : pieces_)
      if (piece.sealed) TRY(set_attributes(piece.tree.get(), MOUNT_ATTR_RDONLY, false));
    TRY(set_attributes(root_.get(), MOUNT_ATTR_RDONLY, false));
    if (::fchdir(root_.get()) != 0) return failed("fchdir");
    if (::syscall(SYS_pivot_root, ".", ".") != 0) return failed_at_root("pivot_root");
    if (::umount2(".", MNT_DETACH) != 0) return failed("umount");
    if (::chdir("/") != 0) return failed("chdir");
    return {};
  }

  const LaunchPlan& plan_;
  const Resources& resources_;
  const SandboxRules& rules_;
  std::vector<Piece> pieces_;
  std::vector<std::pair<std::string, std::string>> links_;
  Fd root_;
};

}  // namespace

Error fixed_root(std::string_view step) {
  return {Code::failed_precondition,
          {fmt::format(
               "服务器的根目录不能换成作业自己的（{}：{}）：它不是独立的挂载点，或位于共享的挂载之中，"
               "例如在普通的 chroot 中。请在容器中启动服务器，或在自己的挂载命名空间里先把该目录绑定挂载到"
               "自身：unshare --mount sh -c 'mount --rbind DIR DIR && exec chroot DIR lathe serve …'",
               step, std::strerror(EINVAL)),
           fmt::format("the server's root cannot be exchanged for a job's own ({}: {}): it is not a mount "
                       "point, or lies within shared mounts, as in a plain chroot. Start the server in a "
                       "container, or bind-mount the folder onto itself in a mount namespace of its own: "
                       "unshare --mount sh -c 'mount --rbind DIR DIR && exec chroot DIR lathe serve …'",
                       step, std::strerror(EINVAL))}};
}

Result<void> enter_view(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules,
                        const std::string& staging) {
  return View(plan, rank, rules).build(staging);
}

}  // namespace lathe::engines
