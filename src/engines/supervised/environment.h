#pragma once

#include <string>
#include <vector>

#include "engines/launch_plan.h"

namespace lathe::engines {

/// What a rank is given by name: the plan's variables, its own, and those that select its accelerators; each
/// name once. `mps_directory`: where a rank with a share of a device finds CUDA MPS.
std::vector<EnvVar> plan_environment(const LaunchPlan& plan, std::size_t rank,
                                     const std::string& mps_directory);
/// What it gets where nobody has said otherwise.
std::vector<EnvVar> default_environment();

/// Is any of these a part of a device that MPS has to hold it to?
bool has_gpu_share(const Resources& resources);
/// How the driver's own tools name a granted device: by UUID where it is known.
std::string gpu_name(const GpuGrant& grant);

}  // namespace lathe::engines
