#include "jobs/capacity.h"

namespace lathe::jobs {

namespace {

/// A machine of less than one core or gigabyte still runs the smallest job.
std::int64_t whole(double amount) {
  return amount > 0 && amount < 1 ? 1 : static_cast<std::int64_t>(amount);
}

}  // namespace

quotas::Compute compute_of(const ResourceTotal& total) {
  return {.cpu = static_cast<double>(total.cpu),
          .memory_gb = static_cast<double>(total.memory_gb),
          .gpu = total.gpu,
          .vgpu = total.vgpu,
          .mig = total.mig,
          .jobs = 1};
}

ResourceTotal capacity_of(const quotas::ResourceGroup& group, const quotas::Compute& machine,
                          const std::vector<engines::GpuDevice>& gpus) {
  ResourceTotal out;
  out.cpu = whole(group.cpu.value_or(machine.cpu));
  out.memory_gb = whole(group.memory_gb.value_or(machine.memory_gb));
  out.gpu = group.gpu.value_or(static_cast<std::int64_t>(gpus.size()));
  return out;
}

}  // namespace lathe::jobs
