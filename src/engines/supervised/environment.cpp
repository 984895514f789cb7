#include "engines/supervised/environment.h"

#include <fmt/format.h>

#include <algorithm>

namespace lathe::engines {

namespace {

void set(std::vector<EnvVar>& env, const EnvVar& wanted) {
  for (auto& var : env)
    if (var.name == wanted.name) {
      var.value = wanted.value;
      return;
    }
  env.push_back(wanted);
}

/// What the MPS clients in the run hold themselves to: the same share of the cores of every device, and of
/// each device, numbered as the run sees them, its memory.
void limit_shares(std::vector<EnvVar>& env, const Resources& resources, const std::string& mps_directory) {
  std::int64_t cores = 100;
  std::string memory;
  for (std::size_t i = 0; i < resources.gpus.size(); ++i) {
    const GpuGrant& gpu = resources.gpus[i];
    if (gpu.share_cores_percent > 0) cores = std::min(cores, gpu.share_cores_percent);
    if (gpu.share_memory_bytes > 0)
      memory += fmt::format("{}{}={}M", memory.empty() ? "" : ",", i, gpu.share_memory_bytes >> 20);
  }
  set(env, {"CUDA_MPS_PIPE_DIRECTORY", mps_directory});
  set(env, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", std::to_string(cores)});
  if (!memory.empty()) set(env, {"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", memory});
}

}  // namespace

bool has_gpu_share(const Resources& resources) {
  return std::any_of(resources.gpus.begin(), resources.gpus.end(),
                     [](const GpuGrant& gpu) { return gpu.share; });
}

std::string gpu_name(const GpuGrant& grant) {
  if (!grant.mig_uuid.empty()) return grant.mig_uuid;
  return grant.uuid.empty() ? std::to_string(grant.index) : grant.uuid;
}

std::vector<EnvVar> plan_environment(const LaunchPlan& plan, std::size_t rank,
                                     const std::string& mps_directory) {
  const Resources& resources = plan.ranks[rank].resources;
  std::vector<EnvVar> env;
  for (const auto& var : plan.env) set(env, var);
  for (const auto& var : plan.ranks[rank].env) set(env, var);
  std::string devices;
  for (const auto& gpu : resources.gpus) devices += (devices.empty() ? "" : ",") + gpu_name(gpu);
  set(env, {"CUDA_VISIBLE_DEVICES", devices});
  if (has_gpu_share(resources)) limit_shares(env, resources, mps_directory);
  set(env, {"NVIDIA_VISIBLE_DEVICES", devices.empty() ? "void" : devices});
  return env;
}

std::vector<EnvVar> default_environment() {
  return {{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
          {"HOME", "/tmp"},
          {"USER", "job"},
          {"LANG", "C.UTF-8"},
          {"TMPDIR", "/tmp"}};
}

}  // namespace lathe::engines
