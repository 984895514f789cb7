#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "engines/supervised/channel.h"
#include "engines/supervised/record.h"

namespace lathe::engines {

struct RankProcess {
  const LaunchRecord& launch;
  std::size_t rank = 0;
  std::string staging;        ///< any directory of the host
  Fd channel;                 ///< SOCK_SEQPACKET
  Fd output;                  ///< becomes standard output and error
  Fd lock;                    ///< held as long as anything of the rank lives
  std::vector<Fd> entrances;  ///< of its cgroup, see Cgroup
};

/// Makes the process: first of its own pid namespace, where it sets itself up, says kReady, and waits for
/// kGo. Dies with the calling process. Returns its pid, seen from here.
Result<pid_t> spawn_rank(RankProcess rank, int clone_into_cgroup);

}  // namespace lathe::engines
