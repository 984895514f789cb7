#include "engines/process/probe.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "base/fd.h"

namespace lathe::engines {

namespace {

/// Makes a child with these namespaces, tries in it what every run needs, and returns the errno of what
/// failed. The caller may have threads, so the child does nothing but system calls.
int try_flags(int flags) {
  const auto pid = static_cast<pid_t>(
      ::syscall(SYS_clone, static_cast<unsigned long>(flags) | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (pid == 0) {
    struct mount_attr none {};
    if (::syscall(SYS_mount_setattr, -1, "", 0, &none, sizeof none) != 0 && errno == ENOSYS) ::_exit(ENOSYS);
    // A container that covers parts of its /proc does not let anybody mount one that shows them.
    const int proc = static_cast<int>(::syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC));
    if (proc < 0 || ::syscall(SYS_fsconfig, proc, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0 ||
        ::syscall(SYS_fsmount, proc, FSMOUNT_CLOEXEC, 0) < 0)
      ::_exit(errno);
    ::_exit(0);
  }
  if (pid < 0) return errno;
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

}  // namespace

Result<NamespaceProbe> probe_namespaces() {
  constexpr int kNeeded = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
  NamespaceProbe out;
  out.user_namespace = ::geteuid() != 0 || try_flags(kNeeded) == EPERM;
  const int around = out.user_namespace ? CLONE_NEWUSER : 0;
  const int why = try_flags(kNeeded | around);
  if (why == ENOSYS)
    return Error{Code::failed_precondition,
                 {"需要 Linux 5.12 或更新的内核", "Linux 5.12 or newer is needed (mount_setattr)"}};
  if (why != 0) {
    const std::string detail = ::strerror(why);
    return Error{
        Code::failed_precondition,
        {"无法创建命名空间（" + detail +
             "）：请以 root 运行，或开启 kernel.unprivileged_userns_clone；在容器中请使用 --privileged",
         "cannot make namespaces (" + detail +
             "): run as root, or enable kernel.unprivileged_userns_clone; in a container, use --privileged"}};
  }
  out.network = try_flags(kNeeded | around | CLONE_NEWNET) == 0;
  return out;
}

}  // namespace lathe::engines
