#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "engines/gpu/gpu_pool.h"

namespace lathe::engines {

struct GpuInventory {
  std::vector<GpuDevice> devices;
  std::string driver_version;
  /// Why there are none, where that is worth telling ("driver found, but …"); empty on a machine without.
  Text trouble;
};

/// Asks the NVIDIA driver's management library (NVML, loaded at run time, so that it need not exist) for the
/// devices of this machine and the MIG slices on them. Takes some milliseconds; call it once at start.
/// `library` is for tests.
GpuInventory find_gpus(const std::string& library = "libnvidia-ml.so.1");

/// What one device does at this moment, for metrics and autoscaling; empty where NVML is not there.
struct GpuLoad {
  std::string uuid;
  int utilisation_percent = 0;
  std::int64_t memory_used_bytes = 0;
};
std::vector<GpuLoad> gpu_load(const std::string& library = "libnvidia-ml.so.1");

/// True where a CUDA MPS control daemon runs at this moment, which is what holds a process to a share of a
/// device. Quick: it may be asked at every launch.
bool mps_is_running();
/// Where its pipes are, or would be.
std::string mps_directory();

}  // namespace lathe::engines
