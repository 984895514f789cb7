#pragma once

#include <vector>

#include "engines/gpu/gpu_pool.h"
#include "jobs/job.h"
#include "quotas/quotas.h"

/// Between the units of requests, quotas and resource groups. Pure.
namespace lathe::jobs {

/// What one job of this size counts as against a quota.
quotas::Compute compute_of(const ResourceTotal& total);

/// What a group has to give; what it does not say itself is the machine's.
ResourceTotal capacity_of(const quotas::ResourceGroup& group, const quotas::Compute& machine,
                          const std::vector<engines::GpuDevice>& gpus);

}  // namespace lathe::jobs
