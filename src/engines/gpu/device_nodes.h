#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "engines/launch_plan.h"

namespace lathe::engines {

/// The nodes below /dev by which a run opens the accelerators it was given, and no others: of a MIG slice the
/// two that name it, not the whole of /dev/nvidia-caps. Some may be absent from a machine. `capabilities` is
/// where the driver tells which node is whose; where it has nothing of the kind there are no slices to guard.
Result<std::vector<std::string>> gpu_device_nodes(
    const std::vector<GpuGrant>& gpus, const std::string& capabilities = "/proc/driver/nvidia/capabilities");

}  // namespace lathe::engines
