#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/job.h"

/// The environment every rank gets. Pure.
namespace lathe::jobs {

/// A variable that the platform sets in every job (RANK, MASTER_ADDR, OMP_NUM_THREADS …) or that every system
/// has (PATH, HOME …).
bool is_platform_variable(std::string_view name);
/// A variable that no request may set: it would change who a rank is, which devices it sees, or what is
/// loaded into its processes before they begin.
bool is_forbidden_variable(std::string_view name);

/// Where the ranks of a run find each other.
struct Rendezvous {
  std::string address = "127.0.0.1";
  std::uint16_t port = 29500;
  std::vector<std::uint16_t> rank_ports;  ///< one a rank, for frameworks that want them all
};

/// What torch.distributed, torchrun, TensorFlow and the arithmetic libraries read, for one rank.
std::vector<EnvironmentVariable> rank_environment(std::string_view framework,
                                                  std::span<const RankRequest> ranks, std::size_t rank,
                                                  const Rendezvous& rendezvous);

}  // namespace lathe::jobs
