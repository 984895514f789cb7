#include <fmt/format.h>

#include <cmath>

#include "quotas/quotas.h"

namespace lathe::quotas {

namespace {

constexpr double kRounding = 1e-9;

struct Line {
  const char* zh;
  const char* en;
  std::optional<double> limit;
  double used, request;
};

std::optional<double> number(const std::optional<std::int64_t>& value) {
  if (!value) return std::nullopt;
  return static_cast<double>(*value);
}

std::vector<Line> lines(const Quota& quota, const Compute& used, const Compute& request) {
  auto real = [](std::int64_t value) { return static_cast<double>(value); };
  return {{"CPU 核数", "CPU cores", quota.cpu, used.cpu, request.cpu},
          {"内存(GB)", "memory (GB)", quota.memory_gb, used.memory_gb, request.memory_gb},
          {"GPU", "GPUs", number(quota.gpu), real(used.gpu), real(request.gpu)},
          {"vGPU", "vGPUs", number(quota.vgpu), real(used.vgpu), real(request.vgpu)},
          {"MIG", "MIG slices", number(quota.mig), real(used.mig), real(request.mig)},
          {"作业数", "jobs", number(quota.jobs), real(used.jobs), real(request.jobs)}};
}

void append(Text& text, const std::string& zh, const std::string& en) {
  text.zh += (text.zh.empty() ? "" : "；") + zh;
  text.en += (text.en.empty() ? "" : "; ") + en;
}

}  // namespace

Compute& Compute::operator+=(const Compute& other) {
  cpu += other.cpu;
  memory_gb += other.memory_gb;
  gpu += other.gpu;
  vgpu += other.vgpu;
  mig += other.mig;
  jobs += other.jobs;
  return *this;
}

Compute& Compute::operator-=(const Compute& other) {
  cpu -= other.cpu;
  memory_gb -= other.memory_gb;
  gpu -= other.gpu;
  vgpu -= other.vgpu;
  mig -= other.mig;
  jobs -= other.jobs;
  return *this;
}

Verdict check(const Quota& quota, const Compute& used, const Compute& request, Time now) {
  Verdict never{Admission::exceeds_max_quota, {}}, later{Admission::waiting_for_quota, {}};
  for (const Line& line : lines(quota, used, request)) {
    // What asks for nothing of a resource is not held up by it, even if its quota was lowered meanwhile.
    if (!line.limit || line.request <= 0) continue;
    if (line.request > *line.limit + kRounding) {
      append(never.detail, fmt::format("{}：申请 {:g}，配额 {:g}", line.zh, line.request, *line.limit),
             fmt::format("{}: {:g} asked for, the quota is {:g}", line.en, line.request, *line.limit));
    } else if (line.used + line.request > *line.limit + kRounding) {
      append(
          later.detail,
          fmt::format("{}：申请 {:g}，已用 {:g}，配额 {:g}", line.zh, line.request, line.used, *line.limit),
          fmt::format("{}: {:g} asked for, {:g} in use, the quota is {:g}", line.en, line.request, line.used,
                      *line.limit));
    }
  }
  if (!never.detail.zh.empty()) return never;
  if (quota.end_time && now >= *quota.end_time) {
    const std::string when = format_local(*quota.end_time);
    return {Admission::quota_expired, {"配额已于 " + when + " 到期", "the quota ended at " + when}};
  }
  if (quota.start_time && now < *quota.start_time) {
    const std::string when = format_local(*quota.start_time);
    return {Admission::quota_expired, {"配额自 " + when + " 起生效", "the quota begins at " + when}};
  }
  if (!later.detail.zh.empty()) return later;
  return {};
}

Result<void> refuse_never(const Verdict& verdict) {
  if (verdict.admission != Admission::exceeds_max_quota) return {};
  return Error{
      Code::unsatisfiable,
      {"超出用户配额：" + verdict.detail.zh, "more than the user's whole quota: " + verdict.detail.en}};
}

}  // namespace lathe::quotas
