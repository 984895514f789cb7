#include "engines/supervised/cgroup.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <sstream>
#include <thread>

#include "base/atomic_file.h"

namespace lathe::engines {

namespace {

constexpr std::string_view kUnified = "unified";
constexpr const char* kControllers[] = {"memory", "cpu", "cpuacct", "pids"};

std::string read_text(const std::string& path) {
  auto text = read_whole_file(AT_FDCWD, path);
  return text.ok() ? std::move(*text) : std::string{};
}

bool write_text(const std::string& path, const std::string& text) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

std::int64_t number(std::string_view text) {
  std::int64_t out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

/// The number after `key` in lines of "key number".
std::int64_t keyed_number(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  std::string word, value;
  while (lines >> word >> value)
    if (word == key) return number(value);
  return 0;
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream words(text);
  std::string one;
  while (words >> one)
    if (one == word) return true;
  return false;
}

/// `a,b,c` holds b?
bool listed(std::string_view list, std::string_view item) {
  while (true) {
    const auto comma = list.find(',');
    if (list.substr(0, comma) == item) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

bool can_make_groups(const std::string& directory) {
  return ::faccessat(AT_FDCWD, directory.c_str(), W_OK, AT_EACCESS) == 0;
}

struct Hierarchy {
  std::string mount_point;
  std::string own_path;  ///< of the process in it, as its /proc/PID/cgroup says
  bool v2 = false;
  std::string controllers;  ///< v1: "cpu,cpuacct"
};

std::vector<Hierarchy> hierarchies(const std::string& process = "self") {
  std::vector<Hierarchy> out;
  std::istringstream mounts(read_text("/proc/self/mounts"));
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream words(line);
    std::string device, point, type, options;
    words >> device >> point >> type >> options;
    if (type == "cgroup2") out.push_back({point, "/", true, {}});
    if (type == "cgroup") out.push_back({point, "/", false, options});
  }
  std::istringstream groups(read_text("/proc/" + process + "/cgroup"));
  while (std::getline(groups, line)) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string list = line.substr(first + 1, second - first - 1);
    for (auto& hierarchy : out) {
      const bool same = hierarchy.v2
                            ? list.empty()
                            : !list.empty() && listed(hierarchy.controllers, list.substr(0, list.find(',')));
      if (same) hierarchy.own_path = line.substr(second + 1);
    }
  }
  return out;
}

std::string own_directory(const Hierarchy& h) {
  std::string own = h.mount_point + (h.own_path == "/" ? "" : h.own_path);
  return exists(own) ? own : h.mount_point;  // in a container the path may be the host's
}

bool enable_controllers(const std::string& directory) {
  const std::string available = read_text(directory + "/cgroup.controllers");
  bool any = false;
  for (const char* controller : {"memory", "cpu", "pids"})
    if (has_word(available, controller))
      any = write_text(directory + "/cgroup.subtree_control", fmt::format("+{}", controller)) || any;
  return any;
}

std::optional<std::string> unified_base(const Hierarchy& h) {
  std::string own = own_directory(h);
  const std::string leaf_name = "/lathe-server";
  if (own.ends_with(leaf_name)) own.resize(own.size() - leaf_name.size());  // this process has moved already
  if (can_make_groups(own)) {
    if (enable_controllers(own)) return own;
    const std::string leaf = own + leaf_name;
    ::mkdir(leaf.c_str(), 0755);
    if (write_text(leaf + "/cgroup.procs", "0") && enable_controllers(own)) return own;
    write_text(own + "/cgroup.procs", "0");
    ::rmdir(leaf.c_str());
  }
  if (can_make_groups(h.mount_point) && enable_controllers(h.mount_point)) return h.mount_point;
  return std::nullopt;
}

}  // namespace

void fields(Fields& f, CgroupPart& p) {
  f.field("controller", p.controller);
  f.field("directory", p.directory, {.max_length = 10'000});
}

Cgroup Cgroup::of_process(std::int64_t pid) {
  std::vector<CgroupPart> parts;
  const auto found = hierarchies(std::to_string(pid));
  for (const char* controller : kControllers)
    for (const auto& h : found)
      if (!h.v2 && listed(h.controllers, controller))
        if (std::string path = h.mount_point + h.own_path; exists(path))
          parts.push_back({controller, std::move(path)});
  if (!parts.empty()) return Cgroup(std::move(parts));
  for (const auto& h : found)
    if (h.v2)
      if (std::string path = h.mount_point + h.own_path; exists(path))
        parts.push_back({std::string(kUnified), std::move(path)});
  return Cgroup(std::move(parts));
}

const std::string* Cgroup::directory(const char* controller) const {
  for (const auto& part : parts_)
    if (part.controller == controller || part.controller == kUnified) return &part.directory;
  return nullptr;
}

Result<void> Cgroup::create(const Resources& limits) const {
  for (const auto& part : parts_) {
    if (::mkdir(part.directory.c_str(), 0755) != 0 && errno != EEXIST)
      return system_error("mkdir " + part.directory, errno);
    const bool v2 = part.controller == kUnified;
    auto set = [&](const char* file, const std::string& value) -> Result<void> {
      if (write_text(part.directory + "/" + file, value) || !exists(part.directory + "/" + file)) return {};
      return system_error(fmt::format("write {} to {}/{}", value, part.directory, file), errno);
    };
    if (limits.memory_bytes > 0 && (v2 || part.controller == "memory")) {
      const std::string bytes = std::to_string(limits.memory_bytes);
      TRY(set(v2 ? "memory.max" : "memory.limit_in_bytes", bytes));
      if (v2) {
        TRY(set("memory.oom.group", "1"));
        TRY(set("memory.swap.max", "0"));
      } else {
        TRY(set("memory.memsw.limit_in_bytes", bytes));
      }
    }
    if (limits.cpus > 0 && (v2 || part.controller == "cpu")) {
      constexpr int kPeriod = 100'000;
      const auto quota = std::max<std::int64_t>(1000, static_cast<std::int64_t>(limits.cpus * kPeriod));
      if (v2) {
        TRY(set("cpu.max", fmt::format("{} {}", quota, kPeriod)));
      } else {
        TRY(set("cpu.cfs_period_us", std::to_string(kPeriod)));
        TRY(set("cpu.cfs_quota_us", std::to_string(quota)));
      }
    }
    // One more than asked for: the rank's first process is the engine's.
    if (limits.pids > 0 && (v2 || part.controller == "pids"))
      TRY(set("pids.max", std::to_string(limits.pids + 1)));
  }
  return {};
}

std::vector<Fd> Cgroup::entrances() const {
  std::vector<Fd> out;
  for (const auto& part : parts_)
    if (part.controller != kUnified)
      out.emplace_back(::open((part.directory + "/tasks").c_str(), O_WRONLY | O_CLOEXEC));
  return out;
}

Fd Cgroup::clone_target() const {
  for (const auto& part : parts_)
    if (part.controller == kUnified)
      return Fd(::open(part.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return {};
}

std::int64_t Cgroup::memory() const {
  const auto* dir = directory("memory");
  if (!dir) return 0;
  const std::string v2 = read_text(*dir + "/memory.current");
  return number(v2.empty() ? read_text(*dir + "/memory.usage_in_bytes") : v2);
}

std::int64_t Cgroup::memory_peak() const {
  const auto* dir = directory("memory");
  if (!dir) return 0;
  const std::string v2 = read_text(*dir + "/memory.peak");
  return number(v2.empty() ? read_text(*dir + "/memory.max_usage_in_bytes") : v2);
}

std::optional<double> Cgroup::cpu_seconds() const {
  const auto* dir = directory("cpuacct");
  if (!dir) return std::nullopt;
  if (const std::string nanoseconds = read_text(*dir + "/cpuacct.usage"); !nanoseconds.empty())
    return static_cast<double>(number(nanoseconds)) / 1e9;
  const std::string stat = read_text(*dir + "/cpu.stat");
  if (stat.empty()) return std::nullopt;
  return static_cast<double>(keyed_number(stat, "usage_usec")) / 1e6;
}

std::int64_t Cgroup::oom_kills() const {
  const auto* dir = directory("memory");
  if (!dir) return 0;
  const std::string v2 = read_text(*dir + "/memory.events");
  return keyed_number(v2.empty() ? read_text(*dir + "/memory.oom_control") : v2, "oom_kill");
}

bool Cgroup::destroy() const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  bool gone = true;
  for (const auto& part : parts_) {
    // A group is busy for a moment after its last process has been reaped.
    while (::rmdir(part.directory.c_str()) != 0 && errno != ENOENT) {
      if (std::chrono::steady_clock::now() > deadline) {
        gone = false;
        break;
      }
      if (!write_text(part.directory + "/cgroup.kill", "1")) {
        std::istringstream pids(read_text(part.directory + "/cgroup.procs"));
        for (pid_t pid = 0; pids >> pid;)
          if (pid > 1) ::kill(pid, SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return gone;
}

CgroupTree CgroupTree::discover() {
  std::vector<CgroupPart> bases;
  const auto found = hierarchies();
  for (const char* controller : kControllers) {
    for (const auto& h : found) {
      if (h.v2 || !listed(h.controllers, controller)) continue;
      std::string base = own_directory(h);
      if (!can_make_groups(base)) base = h.mount_point;
      if (can_make_groups(base)) bases.push_back({controller, base});
      break;
    }
  }
  if (!bases.empty()) return CgroupTree(std::move(bases));
  for (const auto& h : found)
    if (h.v2)
      if (auto base = unified_base(h)) return CgroupTree({{std::string(kUnified), *base}});
  return CgroupTree();
}

bool CgroupTree::has(const std::string& controller) const {
  for (const auto& base : bases_) {
    if (base.controller == controller) return true;
    if (base.controller == kUnified &&
        has_word(read_text(base.directory + "/cgroup.subtree_control"), controller))
      return true;
  }
  return false;
}

Cgroup CgroupTree::group(const std::string& name) const {
  std::vector<CgroupPart> parts;
  for (const auto& base : bases_) {
    const std::string directory = base.directory + "/" + name;
    // "cpu,cpuacct" mounted together is one directory under two names: making it twice is no error.
    parts.push_back({base.controller, directory});
  }
  return Cgroup(std::move(parts));
}

}  // namespace lathe::engines
