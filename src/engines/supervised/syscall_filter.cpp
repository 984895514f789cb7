#include "engines/supervised/syscall_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <vector>

namespace lathe::engines {

namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the system call filter does not know this architecture"
#endif

constexpr unsigned kDenied[] = {
    SYS_mount,          SYS_umount2,         SYS_pivot_root,    SYS_chroot,
    SYS_move_mount,     SYS_open_tree,       SYS_fsopen,        SYS_fsconfig,
    SYS_fsmount,        SYS_fspick,          SYS_mount_setattr, SYS_setns,
    SYS_keyctl,         SYS_add_key,         SYS_request_key,   SYS_bpf,
    SYS_kexec_load,     SYS_kexec_file_load, SYS_init_module,   SYS_finit_module,
    SYS_delete_module,  SYS_perf_event_open, SYS_userfaultfd,   SYS_open_by_handle_at,
    SYS_io_uring_setup, SYS_swapon,          SYS_swapoff,       SYS_reboot,
    SYS_acct,           SYS_quotactl,
};
constexpr unsigned kNamespaces =
    CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

constexpr auto kNumber = offsetof(seccomp_data, nr);
constexpr auto kArch = offsetof(seccomp_data, arch);
constexpr auto kFirstArgument =
    offsetof(seccomp_data, args);  // its low half: both machines are little-endian

sock_filter load(std::size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset));
}
sock_filter answer(unsigned action) {
  return BPF_STMT(BPF_RET | BPF_K, action);
}
/// Skips the next instruction unless the loaded word equals `value`.
sock_filter unless_equal_skip(unsigned value) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
}

}  // namespace

int install_syscall_filter() {
  const unsigned refuse = SECCOMP_RET_ERRNO | EPERM;
  // "No such call" makes libraries fall back: from clone3, whose flags a filter cannot see, to clone.
  const unsigned unknown = SECCOMP_RET_ERRNO | ENOSYS;
  std::vector<sock_filter> code = {
      load(kArch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      answer(unknown),
      load(kNumber),
  };
#if defined(__x86_64__)
  constexpr unsigned kX32 = 0x40000000;
  code.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32, 0, 1));
  code.push_back(answer(unknown));
#endif
  code.push_back(unless_equal_skip(SYS_clone3));
  code.push_back(answer(unknown));
  for (unsigned number : kDenied) {
    code.push_back(unless_equal_skip(number));
    code.push_back(answer(refuse));
  }
  for (unsigned number : {static_cast<unsigned>(SYS_clone), static_cast<unsigned>(SYS_unshare)}) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4));
    code.push_back(load(kFirstArgument));
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kNamespaces, 0, 1));
    code.push_back(answer(refuse));
    code.push_back(answer(SECCOMP_RET_ALLOW));
  }
  code.push_back(answer(SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return errno;
  return 0;
}

}  // namespace lathe::engines
