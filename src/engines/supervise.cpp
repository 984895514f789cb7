#include "engines/supervise.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>

#include "base/log.h"
#include "engines/docker/container_crew.h"
#include "engines/process/process_crew.h"
#include "engines/supervised/supervisor.h"

namespace lathe::engines {

int supervise_main(int argc, char** argv) {
  if (argc < 3) return 1;
  ::umask(077);
  ::close_range(3, ~0U, 0);
  ::setsid();
  ::prctl(PR_SET_NAME, "lathe-run");
  char path[PATH_MAX];
  auto folder = RunFolder::open(AT_FDCWD, ".");
  if (!folder.ok() || !::getcwd(path, sizeof path) || ::chdir("/") != 0) return 1;
  const auto lock = folder->lock();
  if (!lock) return 0;
  auto claimed = folder->write_once(RunFolder::kClaim, ClaimRecord{::getpid()}, Durable::no);
  if (!claimed.ok()) return 1;
  if (!*claimed) return 0;
  const auto launch = folder->read<LaunchRecord>(RunFolder::kLaunch);
  if (!launch.ok() || !*launch) {
    log::error("{}: no launch record", argv[2]);
    return 1;
  }
  if ((*launch)->container) {
    ContainerCrew crew(**launch, *folder, path, *lock);
    return supervise(*folder, **launch, crew);
  }
  ProcessCrew crew(**launch, path, *lock);
  return supervise(*folder, **launch, crew);
}

}  // namespace lathe::engines
