#include "engines/launch_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace lathe::engines {

namespace {

constexpr std::size_t kLong = 1 << 20;  // plans are made by the server: the kernel's limits are the limits

void duration(Fields& f, std::string_view name, Duration& value) {
  std::int64_t milliseconds = value.count();
  f.field(name, milliseconds, {.min = 0});
  value = Duration(milliseconds);
}

bool has_nul(std::string_view text) {
  return text.find('\0') != std::string_view::npos;
}

Error wrong(std::string field, std::string zh, std::string en) {
  return invalid_field(std::move(field), {std::move(zh), std::move(en)});
}

bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

bool has_dot_dot(std::string_view path) {
  for (std::size_t start = 0; start <= path.size();) {
    const auto end = std::min(path.find('/', start), path.size());
    if (path.substr(start, end - start) == "..") return true;
    start = end + 1;
  }
  return false;
}

bool is_absolute(std::string_view path) {
  return path.starts_with('/') && !has_nul(path) && !has_dot_dot(path);
}

bool is_reserved(std::string_view target) {
  while (target.size() > 1 && target.ends_with('/')) target.remove_suffix(1);
  if (target.find_first_not_of('/') == std::string_view::npos) return true;
  for (std::string_view top : {"/proc", "/dev", "/sys"})
    if (target == top || (target.starts_with(top) && target[top.size()] == '/')) return true;
  return false;
}

Result<void> check_env(const std::vector<EnvVar>& env, const std::string& where) {
  for (std::size_t i = 0; i < env.size(); ++i) {
    const auto& [name, value] = env[i];
    if (name.empty() || has_nul(name) || name.find('=') != std::string::npos)
      return wrong(fmt::format("{}[{}].name", where, i), "不是合法的环境变量名",
                   "is not the name of an environment variable");
    if (has_nul(value))
      return wrong(fmt::format("{}[{}].value", where, i), "不能包含 NUL 字符",
                   "must not contain a NUL character");
  }
  return {};
}

}  // namespace

std::string rank_log_path(const LaunchPlan& plan, std::size_t rank) {
  return fmt::format("{}/rank-{}.log", plan.log_dir, rank);
}

Result<void> check(const LaunchPlan& plan) {
  if (!is_plain_id(plan.run_id))
    return wrong("run_id", "应为字母、数字、- 和 _，最长 64 个字符",
                 "must be letters, digits, - and _, at most 64");
  if (plan.argv.empty() || plan.argv[0].empty()) return wrong("argv", "缺少命令", "names no command");
  for (std::size_t i = 0; i < plan.argv.size(); ++i)
    if (has_nul(plan.argv[i]))
      return wrong(fmt::format("argv[{}]", i), "不能包含 NUL 字符", "must not contain a NUL character");
  TRY(check_env(plan.env, "env"));
  if (!is_absolute(plan.work_dir)) return wrong("work_dir", "应为绝对路径", "must be an absolute path");
  if (!is_absolute(plan.log_dir)) return wrong("log_dir", "应为绝对路径", "must be an absolute path");
  for (std::size_t i = 0; i < plan.mounts.size(); ++i) {
    const Mount& mount = plan.mounts[i];
    const std::string where = fmt::format("mounts[{}]", i);
    if (!is_absolute(mount.root)) return wrong(where + ".root", "应为绝对路径", "must be an absolute path");
    if (mount.path.starts_with('/') || has_nul(mount.path) || has_dot_dot(mount.path))
      return wrong(where + ".path", "应为 root 之下的相对路径", "must be a relative path below root");
    if (!is_absolute(mount.target) || is_reserved(mount.target))
      return wrong(where + ".target", "应为绝对路径，且不能是 /、/proc、/dev 或 /sys",
                   "must be an absolute path other than /, /proc, /dev and /sys");
  }
  if (plan.ranks.empty() || plan.ranks.size() > 1024)
    return wrong("ranks", "应有 1 到 1024 个进程", "must be from 1 to 1024");
  for (std::size_t i = 0; i < plan.ranks.size(); ++i) {
    TRY(check_env(plan.ranks[i].env, fmt::format("ranks[{}].env", i)));
    const Resources& r = plan.ranks[i].resources;
    if (!(r.cpus >= 0) || r.memory_bytes < 0 || r.pids < 0 || r.shm_bytes < 0)
      return wrong(fmt::format("ranks[{}].resources", i), "不能为负数", "must not be negative");
  }
  if (plan.time_limit < Duration{0} || plan.stop_grace < Duration{0} || plan.gang_grace < Duration{0} ||
      plan.max_log_bytes < 0)
    return wrong("time_limit", "时间和大小不能为负数", "times and sizes must not be negative");
  constexpr std::int64_t kLastId = 4294967294;
  if (plan.uid < 1 || plan.uid > kLastId || plan.gid < 1 || plan.gid > kLastId)
    return wrong("uid", "不能以 root 身份运行", "must not be root's");
  return {};
}

void fields(Fields& f, EnvVar& v) {
  f.field("name", v.name, {.max_length = kLong});
  f.field("value", v.value, {.max_length = kLong});
}

void fields(Fields& f, Mount& m) {
  f.field("root", m.root, {.max_length = kLong});
  f.field("path", m.path, {.max_length = kLong});
  f.field("target", m.target, {.max_length = kLong});
  f.field("writable", m.writable);
}

void fields(Fields& f, GpuGrant& g) {
  f.field("index", g.index);
  f.field("uuid", g.uuid);
  f.field("migUuid", g.mig_uuid);
  f.field("gpuInstance", g.gpu_instance);
  f.field("computeInstance", g.compute_instance);
  f.field("share", g.share);
  f.field("shareMemoryBytes", g.share_memory_bytes);
  f.field("shareCoresPercent", g.share_cores_percent);
}

void fields(Fields& f, Resources& r) {
  f.field("cpus", r.cpus);
  f.field("memoryBytes", r.memory_bytes);
  f.field("pids", r.pids);
  f.field("shmBytes", r.shm_bytes);
  f.field("gpus", r.gpus);
}

void fields(Fields& f, RankPlan& r) {
  f.field("env", r.env, {.max_items = 100'000});
  f.field("resources", r.resources);
}

void fields(Fields& f, LaunchPlan& p) {
  f.field("runId", p.run_id);
  f.field("image", p.image, {.max_length = kLong});
  f.field("argv", p.argv, {.max_length = kLong, .max_items = 100'000});
  f.field("env", p.env, {.max_items = 100'000});
  f.field("workDir", p.work_dir, {.max_length = kLong});
  f.field("mounts", p.mounts, {.max_items = 10'000});
  f.field("ranks", p.ranks, {.max_items = 1024});
  duration(f, "timeLimitMs", p.time_limit);
  duration(f, "stopGraceMs", p.stop_grace);
  duration(f, "gangGraceMs", p.gang_grace);
  std::string network = p.network == Network::none ? "none" : "host";
  f.field("network", network, {.one_of = "host|none"});
  p.network = network == "none" ? Network::none : Network::host;
  f.field("readOnlyRoot", p.read_only_root);
  f.field("logDir", p.log_dir, {.max_length = kLong});
  f.field("maxLogBytes", p.max_log_bytes);
  f.field("uid", p.uid);
  f.field("gid", p.gid);
}

}  // namespace lathe::engines
