#include "jobs/plan/environment.h"

#include <fmt/format.h>

#include <algorithm>

namespace lathe::jobs {

namespace {

constexpr std::string_view kPlatform[] = {"MASTER_ADDR",
                                          "MASTER_PORT",
                                          "WORLD_SIZE",
                                          "RANK",
                                          "LOCAL_RANK",
                                          "NODE_RANK",
                                          "NNODES",
                                          "NPROC_PER_NODE",
                                          "LOCAL_WORLD_SIZE",
                                          "GROUP_RANK",
                                          "TF_CONFIG",
                                          "HOME",
                                          "PATH",
                                          "USER",
                                          "LANG",
                                          "TMPDIR",
                                          "PWD",
                                          "SHELL",
                                          "OMP_NUM_THREADS",
                                          "OPENBLAS_NUM_THREADS",
                                          "RESUME",
                                          "HOSTNAME",
                                          "OMP_WAIT_POLICY",
                                          "CUDA_VISIBLE_DEVICES",
                                          "NVIDIA_VISIBLE_DEVICES",
                                          "PYTHONUNBUFFERED",
                                          "HYPER_PARAMETERS",
                                          "RESUME_FROM_CHECKPOINT"};

constexpr std::string_view kForbidden[] = {"MASTER_ADDR",
                                           "WORLD_SIZE",
                                           "RANK",
                                           "LOCAL_RANK",
                                           "NODE_RANK",
                                           "NNODES",
                                           "LD_PRELOAD",
                                           "LD_AUDIT",
                                           "CUDA_VISIBLE_DEVICES",
                                           "NVIDIA_VISIBLE_DEVICES",
                                           "PWD",
                                           "IFS",
                                           "HYPER_PARAMETERS",
                                           "CUDA_MPS_PIPE_DIRECTORY"};

bool has(std::span<const std::string_view> list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

/// Masters are TensorFlow's chief.
std::string tf_config(std::span<const RankRequest> ranks, std::size_t rank, const Rendezvous& rendezvous) {
  std::string chief, worker;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    auto& list = ranks[i].role == NodeRole::master ? chief : worker;
    const auto port = i < rendezvous.rank_ports.size() ? rendezvous.rank_ports[i]
                                                       : static_cast<std::uint16_t>(rendezvous.port + i);
    list += fmt::format("{}\"{}:{}\"", list.empty() ? "" : ", ", rendezvous.address, port);
  }
  std::string cluster;
  if (!chief.empty()) cluster += fmt::format("\"chief\": [{}]", chief);
  if (!worker.empty()) cluster += fmt::format("{}\"worker\": [{}]", cluster.empty() ? "" : ", ", worker);
  return fmt::format(R"({{"cluster": {{{}}}, "task": {{"type": "{}", "index": {}}}}})", cluster,
                     ranks[rank].role == NodeRole::master ? "chief" : "worker", ranks[rank].index);
}

}  // namespace

bool is_platform_variable(std::string_view name) {
  return name.starts_with("LATHE_") || name.starts_with("PET_") || has(kPlatform, name);
}

bool is_forbidden_variable(std::string_view name) {
  return name.starts_with("LATHE_") || name.starts_with("PET_") || has(kForbidden, name);
}

std::vector<EnvironmentVariable> rank_environment(std::string_view framework,
                                                  std::span<const RankRequest> ranks, std::size_t rank,
                                                  const Rendezvous& rendezvous) {
  const auto& need = ranks[rank].need;
  const auto count = std::to_string(ranks.size());
  const auto number = std::to_string(rank);
  const auto port = std::to_string(rendezvous.port);
  // torchrun starts one process a device; without devices one a rank.
  const auto processes = std::to_string(std::max(1, need.gpu.count));
  std::vector<EnvironmentVariable> out{
      {"MASTER_ADDR", rendezvous.address},
      {"MASTER_PORT", port},
      {"WORLD_SIZE", count},
      {"RANK", number},
      {"LOCAL_RANK", "0"},
      {"NODE_RANK", number},
      {"NNODES", count},
      {"NPROC_PER_NODE", processes},
      {"PET_NNODES", count},
      {"PET_NODE_RANK", number},
      {"PET_NPROC_PER_NODE", processes},
      {"PET_MASTER_ADDR", rendezvous.address},
      {"PET_MASTER_PORT", port},
      {"OMP_NUM_THREADS", std::to_string(std::max(1, need.cpu))},
      {"OPENBLAS_NUM_THREADS", "1"},
      {"OMP_WAIT_POLICY", "passive"},
      {"PYTHONUNBUFFERED", "1"},
      {"LATHE_ROLE", std::string(name(ranks[rank].role))},
      {"LATHE_RANK", number},
  };
  if (framework == "TensorFlow") out.push_back({"TF_CONFIG", tf_config(ranks, rank, rendezvous)});
  return out;
}

}  // namespace lathe::jobs
