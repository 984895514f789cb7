#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace lathe::engines {

/// Starts a supervisor as a child in a session of its own, in the run's folder, where its output goes to
/// supervisor.log. It gets nothing of the server's environment but the time zone, and no descriptor.
Result<pid_t> spawn_supervisor(std::vector<std::string> argv, const std::string& run_folder);

}  // namespace lathe::engines
