#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "engines/process/record.h"

namespace lathe::engines {

/// What a rank's first process and its supervisor say to each other, one packet each.
namespace channel {
inline constexpr char kReady = 'R';   ///< up: the view stands, the rights are dropped
inline constexpr char kFailed = 'E';  ///< up, then zh, NUL, en: the view could not be built
inline constexpr char kGo = 'G';      ///< down: run the command
inline constexpr char kExec = 'P';  ///< up, then an int: 0, or the errno with which the command did not start
inline constexpr char kExit = 'X';  ///< up, then an int: the command's wait status
inline constexpr char kStop = 'T';  ///< down: SIGTERM to everything, then stay until all of it has ended
}  // namespace channel

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
