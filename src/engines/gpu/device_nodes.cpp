#include "engines/gpu/device_nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>

namespace lathe::engines {

namespace {

/// "DeviceFileMinor: 21" among the lines of an `access` file: N of /dev/nvidia-caps/nvidia-capN.
std::optional<int> minor_of(const std::string& file) {
  constexpr std::string_view kKey = "DeviceFileMinor:";
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(kKey)) continue;
    const auto begin = std::min(line.find_first_not_of(" \t", kKey.size()), line.size());
    int minor = -1;
    const char* last = line.data() + line.size();
    const auto [end, error] = std::from_chars(line.data() + begin, last, minor);
    if (error == std::errc{} && end == last && minor >= 0) return minor;
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<std::string>> gpu_device_nodes(const std::vector<GpuGrant>& gpus,
                                                  const std::string& capabilities) {
  std::vector<std::string> out;
  if (gpus.empty()) return out;
  const auto add = [&](std::string node) {
    if (std::find(out.begin(), out.end(), node) == out.end()) out.push_back(std::move(node));
  };
  for (const char* shared : {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"}) add(shared);
  std::error_code ignored;
  const bool guarded = std::filesystem::exists(capabilities, ignored);
  for (const auto& gpu : gpus) {
    add(fmt::format("nvidia{}", gpu.index));
    if (gpu.mig_uuid.empty() || !guarded) continue;
    const auto instance = fmt::format("{}/gpu{}/mig/gi{}", capabilities, gpu.index, gpu.gpu_instance);
    for (const auto& folder : {instance, fmt::format("{}/ci{}", instance, gpu.compute_instance)}) {
      const auto minor = minor_of(folder + "/access");
      if (!minor)
        return Error{Code::failed_precondition,
                     {fmt::format("驱动未说明 MIG 切片 {} 的设备节点", gpu.mig_uuid),
                      fmt::format("the driver does not tell the device nodes of MIG slice {}: no {}/access",
                                  gpu.mig_uuid, folder)}};
      add(fmt::format("nvidia-caps/nvidia-cap{}", *minor));
    }
  }
  return out;
}

}  // namespace lathe::engines
