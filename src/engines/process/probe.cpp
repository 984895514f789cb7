#include "engines/process/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <string>

#include "engines/process/sandbox.h"

namespace lathe::engines {

namespace {

/// What was refused; nothing if `why` is 0.
struct Refusal {
  const char* step = "";
  int why = 0;
  bool of_root = false;  ///< the process's root cannot be exchanged
};

/// What every run needs, in the order in which it does it. Nothing but system calls.
Refusal try_steps() {
  struct mount_attr none {};
  if (::syscall(SYS_mount_setattr, -1, "", 0, &none, sizeof none) != 0 && errno == ENOSYS)
    return {"mount_setattr", ENOSYS};
  // A container that covers parts of its /proc does not let anybody mount one that shows them.
  const int proc = static_cast<int>(::syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC));
  if (proc < 0 || ::syscall(SYS_fsconfig, proc, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return {"mount proc", errno};
  const int tree = static_cast<int>(::syscall(SYS_fsmount, proc, FSMOUNT_CLOEXEC, 0));
  if (tree < 0) return {"mount proc", errno};
  if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return {"make mounts private", errno, true};
  if (::syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return {"move_mount", errno};
  if (::fchdir(tree) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0) return {"pivot_root", errno, true};
  return {};
}

/// Tries it in a child with these namespaces. The caller may have threads, so the child allocates nothing.
Refusal try_flags(int flags) {
  void* page = ::mmap(nullptr, sizeof(Refusal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return {"mmap", errno};
  auto* told = new (page) Refusal{"clone", EIO};
  const auto pid = static_cast<pid_t>(
      ::syscall(SYS_clone, static_cast<unsigned long>(flags) | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) {
    *told = try_steps();
    ::_exit(0);
  }
  if (pid < 0) *told = {"clone", errno};
  while (pid > 0 && ::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  const Refusal out = *told;
  ::munmap(page, sizeof(Refusal));
  return out;
}

}  // namespace

Result<NamespaceProbe> probe_namespaces() {
  constexpr int kNeeded = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
  NamespaceProbe out;
  out.user_namespace = ::geteuid() != 0 || try_flags(kNeeded).why == EPERM;
  const int around = out.user_namespace ? CLONE_NEWUSER : 0;
  const Refusal refused = try_flags(kNeeded | around);
  if (refused.why == ENOSYS)
    return Error{Code::failed_precondition,
                 {"需要 Linux 5.12 或更新的内核", "Linux 5.12 or newer is needed (mount_setattr)"}};
  if (refused.why == EINVAL && refused.of_root) return fixed_root(refused.step);
  if (refused.why != 0) {
    const std::string detail = std::string(refused.step) + ": " + ::strerror(refused.why);
    return Error{Code::failed_precondition,
                 {"无法创建命名空间（" + detail +
                      "）：请以 root 运行，或开启 kernel.unprivileged_userns_clone（在 chroot 中只能以 root "
                      "运行）；在容器中请使用 --privileged",
                  "cannot make namespaces (" + detail +
                      "): run as root, or enable kernel.unprivileged_userns_clone (in a chroot only root "
                      "may); in a container, use --privileged"}};
  }
  out.network = try_flags(kNeeded | around | CLONE_NEWNET).why == 0;
  return out;
}

}  // namespace lathe::engines
