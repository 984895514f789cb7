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
#include "engines/process/syscall_filter.h"

namespace lathe::engines {

namespace {

Result<void> write_proc(const char* path, const std::string& text) {
  const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file || ::write(file.get(), text.data(), text.size()) < 0) return system_error(path, errno);
  return {};
}

void set_default(std::vector<EnvVar>& env, const char* name, std::string value) {
  for (const auto& var : env)
    if (var.name == name) return;
  env.push_back({name, std::move(value)});
}

void set(std::vector<EnvVar>& env, const EnvVar& wanted) {
  for (auto& var : env)
    if (var.name == wanted.name) {
      var.value = wanted.value;
      return;
    }
  env.push_back(wanted);
}

/// What the MPS clients in the run hold themselves to: the same share of the cores of every device, and of
/// each device, numbered as the run sees them, its memory.
void limit_shares(std::vector<EnvVar>& env, const Resources& resources, const SandboxRules& rules) {
  std::int64_t cores = 100;
  std::string memory;
  for (std::size_t i = 0; i < resources.gpus.size(); ++i) {
    const GpuGrant& gpu = resources.gpus[i];
    if (gpu.share_cores_percent > 0) cores = std::min(cores, gpu.share_cores_percent);
    if (gpu.share_memory_bytes > 0)
      memory += fmt::format("{}{}={}M", memory.empty() ? "" : ",", i, gpu.share_memory_bytes >> 20);
  }
  set(env, {"CUDA_MPS_PIPE_DIRECTORY", rules.mps_directory});
  set(env, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", std::to_string(cores)});
  if (!memory.empty()) set(env, {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", memory});
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
  return install_syscall_filter();
}

bool has_gpu_share(const Resources& resources) {
  return std::any_of(resources.gpus.begin(), resources.gpus.end(), [](const GpuGrant& gpu) {
    return gpu.share_memory_bytes > 0 || gpu.share_cores_percent > 0;
  });
}

std::vector<std::string> environment(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules) {
  std::vector<EnvVar> env;
  for (const auto& var : plan.env) set(env, var);
  for (const auto& var : plan.ranks[rank].env) set(env, var);
  set_default(env, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  set_default(env, "HOME", "/tmp");
  set_default(env, "USER", "job");
  set_default(env, "LANG", "C.UTF-8");
  set_default(env, "TMPDIR", "/tmp");
  std::string devices;
  for (const auto& gpu : plan.ranks[rank].resources.gpus) {
    devices += devices.empty() ? "" : ",";
    devices += !gpu.mig_uuid.empty() ? gpu.mig_uuid
               : !gpu.uuid.empty()   ? gpu.uuid
                                     : std::to_string(gpu.index);
  }
  set(env, {"CUDA_VISIBLE_DEVICES", devices});
  if (has_gpu_share(plan.ranks[rank].resources)) limit_shares(env, plan.ranks[rank].resources, rules);
  set(env, {"NVIDIA_VISIBLE_DEVICES", devices.empty() ? "void" : devices});
  std::vector<std::string> out;
  for (const auto& var : env) out.push_back(var.name + "=" + var.value);
  return out;
}

}  // namespace lathe::engines
