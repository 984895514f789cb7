#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/json.h"
#include "base/result.h"
#include "engines/supervised/record.h"

/// From a rank of a plan to what the daemon is asked for, and what the container's first program is told.
namespace lathe::engines {

inline constexpr const char* kOwnerLabel = "lathe.engine";
inline constexpr const char* kRunLabel = "lathe.run";
inline constexpr const char* kRankLabel = "lathe.rank";

/// A mount of the plan, found on the host.
struct FoundMount {
  std::string source;  ///< without symbolic links at the moment it was found
  std::string target;
  bool writable = false;
  std::string identity;  ///< device and inode: what must be there in the container
  Fd held;               ///< so that the inode is not another's meanwhile
};
/// Opens what the plan mounts, strictly beneath their roots. Errors name what is missing or leads out.
Result<std::vector<FoundMount>> find_mounts(const LaunchPlan& plan);

/// The body of POST /containers/create. `channel`: path of the supervisor's socket. `joined`: the container
/// whose network it shares, or "".
Json container_body(const LaunchRecord& launch, std::size_t rank, const std::vector<FoundMount>& mounts,
                    const std::string& channel, const std::string& joined);

/// What of the body the daemon has left out without a word, from its description of the container.
Result<void> check_granted(const LaunchRecord& launch, std::size_t rank, const Json& described);

/// The text of init/setup.h.
std::string setup_text(const LaunchRecord& launch, std::size_t rank, const std::vector<FoundMount>& mounts);

}  // namespace lathe::engines
