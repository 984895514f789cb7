#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/launch_plan.h"

namespace lathe::engines {

/// A MIG slice that exists on a device (slices are made by the administrator, not by the platform).
struct MigSlice {
  std::string uuid;     ///< "MIG-…"
  std::string profile;  ///< "1g.10gb"
  /// Its numbers on the device, "gi" and "ci" in NVIDIA's paths; -1 where the driver does not say.
  std::int64_t gpu_instance = -1;
  std::int64_t compute_instance = -1;
};

/// One accelerator of this machine.
struct GpuDevice {
  std::int64_t index = 0;
  std::string uuid;  ///< "GPU-…"
  std::string model;
  std::int64_t memory_bytes = 0;
  std::vector<MigSlice> slices;  ///< a device in MIG mode is given by the slice only
};

/// What one rank asks for: `count` whole devices, or `count` shares of devices, or `count` slices.
struct GpuNeed {
  enum class Mode { whole, share, slice };
  Mode mode = Mode::whole;
  std::int64_t count = 0;
  std::int64_t memory_bytes = 0;   ///< of each share
  std::int64_t cores_percent = 0;  ///< of each share, 1 … 100
  std::string profile;             ///< of each slice; empty: any
};

/// Who holds which accelerator. A value: copied to try something out. Shares of one device may not add up to
/// more than its memory or 100 % of its cores; a device that is shared is not given whole, and the reverse.
class GpuPool {
 public:
  GpuPool() = default;
  explicit GpuPool(std::vector<GpuDevice> devices);

  const std::vector<GpuDevice>& devices() const { return devices_; }
  /// Whole devices that nobody holds any of.
  std::int64_t free_devices() const;

  /// Marks what a running rank holds. Unknown devices are ignored: they were there when it started.
  void hold(const GpuGrant& grant);

  /// Finds room for every need (one per rank) at once and holds it, or nothing. Shares are packed onto the
  /// fullest device they fit on, so that whole ones stay free.
  std::optional<std::vector<std::vector<GpuGrant>>> place(const std::vector<GpuNeed>& needs);

  /// Could it ever be placed, were nobody else there?
  bool can_ever_place(const std::vector<GpuNeed>& needs) const;

 private:
  struct Held {
    bool whole = false;
    std::int64_t shares = 0, memory_bytes = 0, cores_percent = 0;
    std::vector<std::string> slices;
  };
  std::optional<GpuGrant> place_one(const GpuNeed& need);

  std::vector<GpuDevice> devices_;
  std::vector<Held> held_;
};

}  // namespace lathe::engines
