#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/directory.h"
#include "base/fd.h"
#include "engines/process/sandbox.h"
#include "engines/supervised/environment.h"
#include "engines/supervised/syscall_filter.h"

namespace lathe::engines {

namespace {

Result<void> write_proc(const char* path, const std::string& text) {
  const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file || ::write(file.get(), text.data(), text.size()) < 0) return system_error(path, errno);
  return {};
}

}  // namespace

void fields(Fields& f, SandboxRules& r) {
  f.field("systemPaths", r.system_paths, {.max_length = 10'000});
  f.field("hiddenPaths", r.hidden_paths, {.max_length = 10'000});
  f.field("userNamespace", r.user_namespace);
  f.field("mpsDirectory", r.mps_directory, {.max_length = 10'000});
}

Result<void> enter_user_namespace(std::int64_t uid, std::int64_t gid) {
  const uid_t outer_uid = ::geteuid();
  const gid_t outer_gid = ::getegid();
  if (::unshare(CLONE_NEWUSER) != 0) return system_error("unshare(CLONE_NEWUSER)", errno);
  TRY(write_proc("/proc/self/setgroups", "deny"));
  TRY(write_proc("/proc/self/uid_map", fmt::format("{} {} 1", uid, outer_uid)));
  TRY(write_proc("/proc/self/gid_map", fmt::format("{} {} 1", gid, outer_gid)));
  return {};
}

Result<void> enter_empty_network() {
  if (::unshare(CLONE_NEWNET) != 0) return system_error("unshare(CLONE_NEWNET)", errno);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return system_error("socket", errno);
  struct ifreq request {};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return system_error("loopback up", errno);
  return {};
}

Result<void> drop_privileges(const LaunchPlan& plan, const SandboxRules& rules) {
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability)
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return system_error("drop capabilities", errno);
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (!rules.user_namespace) {
    const auto uid = static_cast<uid_t>(plan.uid);
    const auto gid = static_cast<gid_t>(plan.gid);
    if (::setgroups(0, nullptr) != 0 || ::setresgid(gid, gid, gid) != 0 || ::setresuid(uid, uid, uid) != 0)
      return system_error("setresuid", errno);
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (::syscall(SYS_capset, &header, none) != 0) return system_error("capset", errno);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_error("no_new_privs", errno);
  const struct rlimit no_core { 0, 0 };
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::umask(022);
  if (const int why = install_syscall_filter(); why != 0)
    return system_error("install the system call filter", why);
  return {};
}

std::vector<std::string> environment(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules) {
  const auto env = plan_environment(plan, rank, rules.mps_directory);
  std::vector<std::string> out;
  for (const auto& var : env) out.push_back(var.name + "=" + var.value);
  for (const auto& var : default_environment())
    if (std::none_of(env.begin(), env.end(), [&](const EnvVar& own) { return own.name == var.name; }))
      out.push_back(var.name + "=" + var.value);
  return out;
}

}  // namespace lathe::engines
