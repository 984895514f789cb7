#include "engines/docker/container_spec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <climits>

#include "engines/docker/init/setup.h"
#include "engines/supervised/environment.h"

namespace lathe::engines {

namespace bj = boost::json;

namespace {

Error unmountable(const Mount& mount, int why) {
  const std::string path = mount.path.empty() ? mount.target : mount.path;
  if (why == ENOENT || why == ENOTDIR)
    return {Code::not_found, {"目录或文件不存在：" + path, "no such directory or file: " + path}};
  if (why == EXDEV || why == ELOOP)
    return {Code::permission_denied,
            {"符号链接指向允许范围之外：" + path, "a symbolic link leads out of the user's files: " + path}};
  return system_error("mount " + path, why);
}

Result<FoundMount> find_mount(const Mount& mount) {
  const Fd root(::open(mount.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return unmountable(mount, errno);
  struct open_how how {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const std::string path = mount.path.empty() ? "." : mount.path;
  Fd found(static_cast<int>(::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how)));
  if (!found) return unmountable(mount, errno);
  struct stat info {};
  if (::fstat(found.get(), &info) != 0 || !(S_ISDIR(info.st_mode) || S_ISREG(info.st_mode)))
    return unmountable(mount, EINVAL);
  char source[PATH_MAX];
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", found.get()).c_str(), source, sizeof source);
  if (length <= 0 || length == sizeof source) return unmountable(mount, ENAMETOOLONG);
  return FoundMount{std::string(source, static_cast<std::size_t>(length)), mount.target, mount.writable,
                    fmt::format("{}:{}:{}", major(info.st_dev), minor(info.st_dev), info.st_ino),
                    std::move(found)};
}

bj::object bind_mount(const std::string& source, std::string_view target, bool writable) {
  return {{"Type", "bind"},
          {"Source", source},
          {"Target", target},
          {"ReadOnly", !writable},
          {"BindOptions", bj::object{{"Propagation", "rprivate"}}}};
}

bj::array variables(const LaunchRecord& launch, std::size_t rank) {
  // Only what the container's runtime itself goes by: a plan's variables may be secrets, and whoever may ask
  // the daemon sees these.
  bj::array out;
  for (const auto& var : plan_environment(launch.plan, rank, {}))
    if (var.name == "NVIDIA_VISIBLE_DEVICES") out.emplace_back("NVIDIA_VISIBLE_DEVICES=" + var.value);
  return out;
}

bj::array gpu_requests(const LaunchRecord& launch, const Resources& resources) {
  bj::array names, out;
  const bool cdi = launch.container->gpus == "cdi";
  for (const auto& gpu : resources.gpus) names.emplace_back((cdi ? "nvidia.com/gpu=" : "") + gpu_name(gpu));
  if (names.empty()) return out;
  bj::object request{{"DeviceIDs", std::move(names)}};
  request["Driver"] = cdi ? "cdi" : "nvidia";
  if (!cdi) {
    bj::array wanted;
    wanted.emplace_back("gpu");
    wanted.emplace_back("compute");
    wanted.emplace_back("utility");
    bj::array any;
    any.emplace_back(std::move(wanted));
    request["Capabilities"] = std::move(any);
  }
  out.emplace_back(std::move(request));
  return out;
}

bj::object host_part(const LaunchRecord& launch, std::size_t rank, const std::vector<FoundMount>& mounts,
                     const std::string& channel, const std::string& joined) {
  const LaunchPlan& plan = launch.plan;
  const Resources& wanted = plan.ranks[rank].resources;
  bj::object host;
  host["NetworkMode"] = plan.network == Network::host ? "host"
                        : joined.empty()              ? "none"
                                                      : "container:" + joined;
  bj::array caps, security;
  caps.emplace_back("ALL");
  security.emplace_back("no-new-privileges");
  host["CapDrop"] = std::move(caps);
  host["SecurityOpt"] = std::move(security);
  host["LogConfig"] = bj::object{{"Type", "none"}};
  host["RestartPolicy"] = bj::object{{"Name", "no"}};
  host["Init"] = false;
  host["OomScoreAdj"] = 500;  // under memory pressure of the whole machine a job goes before the server does
  host["IpcMode"] = has_gpu_share(wanted) ? "host" : "private";
  if (wanted.memory_bytes > 0) {
    host["Memory"] = wanted.memory_bytes;
    host["MemorySwap"] = wanted.memory_bytes;
  }
  if (wanted.cpus > 0) {
    constexpr std::int64_t kPeriod = 100'000;
    host["CpuPeriod"] = kPeriod;
    host["CpuQuota"] = std::max<std::int64_t>(1000, static_cast<std::int64_t>(wanted.cpus * kPeriod));
  }
  if (wanted.pids > 0) host["PidsLimit"] = wanted.pids + 1;  // the first program is ours
  const auto shm = wanted.shm_bytes > 0 ? wanted.shm_bytes : wanted.memory_bytes / 2;
  if (shm > 0 && !has_gpu_share(wanted)) host["ShmSize"] = shm;
  if (plan.read_only_root) {
    host["ReadonlyRootfs"] = true;
    host["Tmpfs"] = bj::object{{"/tmp", "rw,exec,nosuid,nodev,mode=1777"}};
  }
  bj::array binds;
  for (const auto& mount : mounts) binds.emplace_back(bind_mount(mount.source, mount.target, mount.writable));
  if (has_gpu_share(wanted))
    binds.emplace_back(bind_mount(launch.rules.mps_directory, launch.rules.mps_directory, true));
  binds.emplace_back(bind_mount(launch.container->first, container::kFirst, false));
  binds.emplace_back(bind_mount(channel, container::kChannel, true));
  host["Mounts"] = std::move(binds);
  if (auto requests = gpu_requests(launch, wanted); !requests.empty())
    host["DeviceRequests"] = std::move(requests);
  return host;
}

const Json* member(const Json& value, std::string_view key) {
  return value.is_object() ? value.as_object().if_contains(key) : nullptr;
}

std::int64_t number(const Json* value) {
  if (!value) return 0;
  return value->is_int64()    ? value->as_int64()
         : value->is_double() ? static_cast<std::int64_t>(value->as_double())
                              : 0;
}

void add_list(std::string& out, const std::vector<std::string>& words) {
  out += std::to_string(words.size());
  out += '\0';
  for (const auto& word : words) {
    out += word;
    out += '\0';
  }
}

std::vector<std::string> assignments(const std::vector<EnvVar>& variables) {
  std::vector<std::string> out;
  for (const auto& var : variables) out.push_back(var.name + "=" + var.value);
  return out;
}

}  // namespace

Result<std::vector<FoundMount>> find_mounts(const LaunchPlan& plan) {
  std::vector<FoundMount> out;
  for (const auto& mount : plan.mounts) {
    auto found = TRY(find_mount(mount));
    // The daemon takes no target twice: the later one lies over the earlier.
    std::erase_if(out, [&](const FoundMount& earlier) { return earlier.target == found.target; });
    out.push_back(std::move(found));
  }
  return out;
}

Json container_body(const LaunchRecord& launch, std::size_t rank, const std::vector<FoundMount>& mounts,
                    const std::string& channel, const std::string& joined) {
  bj::object body;
  body["Image"] = launch.container->image;
  bj::array entry, health;
  entry.emplace_back(container::kFirst);
  health.emplace_back("NONE");
  body["Entrypoint"] = std::move(entry);
  body["Cmd"] = bj::array{};
  body["Healthcheck"] = bj::object{{"Test", std::move(health)}};
  body["User"] = fmt::format("{}:{}", launch.plan.uid, launch.plan.gid);
  body["WorkingDir"] = "/";
  body["Tty"] = false;
  body["Env"] = variables(launch, rank);
  body["Labels"] = bj::object{
      {kOwnerLabel, launch.owner}, {kRunLabel, launch.plan.run_id}, {kRankLabel, std::to_string(rank)}};
  body["HostConfig"] = host_part(launch, rank, mounts, channel, joined);
  return body;
}

Result<void> check_granted(const LaunchRecord& launch, std::size_t rank, const Json& described) {
  const Resources& wanted = launch.plan.ranks[rank].resources;
  const Json* host = member(described, "HostConfig");
  if (!host) return {};
  const auto lacks = [](std::string zh, std::string en) {
    return Error{Code::failed_precondition,
                 {"容器引擎未执行请求：" + zh, "the container daemon has silently ignored " + en}};
  };
  if (!wanted.gpus.empty()) {
    const Json* requests = member(*host, "DeviceRequests");
    const Json* devices = member(*host, "Devices");
    const auto any = [](const Json* list) { return list && list->is_array() && !list->as_array().empty(); };
    if (!any(requests) && !any(devices))
      return lacks("GPU（该版本不支持 DeviceRequests）",
                   "the request for GPUs: it is too old for it, or not set up");
  }
  if (wanted.memory_bytes > 0 && number(member(*host, "Memory")) != wanted.memory_bytes)
    return lacks("内存上限", "the memory limit");
  if (wanted.pids > 0 && number(member(*host, "PidsLimit")) != wanted.pids + 1)
    return lacks("进程数上限", "the limit on processes");
  return {};
}

std::string setup_text(const LaunchRecord& launch, std::size_t rank, const std::vector<FoundMount>& mounts) {
  const LaunchPlan& plan = launch.plan;
  std::string out;
  add_list(out, plan.argv);
  add_list(out, assignments(plan_environment(plan, rank, launch.rules.mps_directory)));
  add_list(out, assignments(default_environment()));
  out += plan.work_dir;
  out += '\0';
  out += std::to_string(mounts.size());
  out += '\0';
  for (const auto& mount : mounts) {
    out += mount.target;
    out += '\0';
    out += mount.identity;
    out += '\0';
  }
  std::vector<std::string> devices;
  for (const auto& gpu : plan.ranks[rank].resources.gpus)
    if (gpu.mig_uuid.empty()) devices.push_back(fmt::format("/dev/nvidia{}", gpu.index));
  if (!plan.ranks[rank].resources.gpus.empty()) devices.emplace_back("/dev/nvidiactl");
  add_list(out, devices);
  return out;
}

}  // namespace lathe::engines
