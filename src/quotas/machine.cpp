#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "quotas/quotas.h"

namespace lathe::quotas {

namespace {

constexpr double kGb = 1024.0 * 1024 * 1024;

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<double> number(std::string_view text) {
  double out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  return out;
}

double cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<double>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

double memory_bytes() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

/// The directories of this process's control group and its ancestors, where each may set a limit.
std::vector<std::filesystem::path> groups_of(std::string_view controller) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  std::vector<std::filesystem::path> out;
  while (std::getline(file, line)) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::istringstream names(controllers);
    bool wanted = controllers.empty() && controller.empty();
    for (std::string name; std::getline(names, name, ',');) wanted |= name == controller;
    if (!wanted) continue;
    const std::filesystem::path root = controller.empty()
                                           ? std::filesystem::path("/sys/fs/cgroup")
                                           : std::filesystem::path("/sys/fs/cgroup") / controller;
    std::filesystem::path at = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (;; at = at.parent_path()) {
      out.push_back(root / at);
      if (at.empty()) break;
    }
  }
  return out;
}

double limit_cores(double count) {
  for (const auto& group : groups_of("")) {
    const std::string line = first_line(group / "cpu.max");
    const auto quota = number(line);
    const auto period = number(std::string_view(line).substr(std::min(line.find(' ') + 1, line.size())));
    if (quota && period && *period > 0) count = std::min(count, *quota / *period);
  }
  for (const auto& group : groups_of("cpu")) {
    const auto quota = number(first_line(group / "cpu.cfs_quota_us"));
    const auto period = number(first_line(group / "cpu.cfs_period_us"));
    if (quota && *quota > 0 && period && *period > 0) count = std::min(count, *quota / *period);
  }
  return count;
}

double limit_memory(double bytes) {
  for (const auto& group : groups_of(""))
    if (const auto limit = number(first_line(group / "memory.max"))) bytes = std::min(bytes, *limit);
  for (const auto& group : groups_of("memory"))
    if (const auto limit = number(first_line(group / "memory.limit_in_bytes")))
      bytes = std::min(bytes, *limit);
  return bytes;
}

}  // namespace

Compute machine_capacity() {
  Compute out;
  out.cpu = limit_cores(cores());
  out.memory_gb = limit_memory(memory_bytes()) / kGb;
  return out;
}

}  // namespace lathe::quotas
