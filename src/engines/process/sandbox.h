#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "engines/launch_plan.h"

namespace lathe::engines {

/// What every run of a server sees and does not see of the machine.
struct SandboxRules {
  /// Directories of the host that are shown read-only at the same path, where they exist.
  std::vector<std::string> system_paths = {"/usr",   "/bin",    "/sbin", "/lib", "/lib32",
                                           "/lib64", "/libx32", "/etc",  "/opt"};
  /// What is covered up where it lies within these: the server's data and its configuration.
  std::vector<std::string> hidden_paths = {};
  /// Namespaces come from a user namespace: the server is not root.
  bool user_namespace = false;
  /// Where the CUDA MPS control daemon listens, if one runs. A rank that has a share of a GPU sees this
  /// directory and the host's /dev/shm, by which MPS works.
  std::string mps_directory = {};
};
void fields(Fields& f, SandboxRules& r);

/// Puts the calling process into a user namespace in which it is `uid`, with the right to make the other
/// namespaces. The process must have one thread.
Result<void> enter_user_namespace(std::int64_t uid, std::int64_t gid);

/// Puts the calling process into a network namespace with nothing but a loopback interface, which is up.
Result<void> enter_empty_network();

/// Builds a run's view of the machine and makes it the calling process's root: the system read-only, fresh
/// /tmp, /dev and /proc, the plan's mounts and nothing else. The process must be alone in fresh mount, pid
/// and ipc namespaces and have one thread; `staging` is any directory of the host. On return the working
/// directory is "/".
Result<void> enter_view(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules,
                        const std::string& staging);

/// Why a process here cannot exchange its root for another one; `step` failed with EINVAL.
Error fixed_root(std::string_view step);

/// Gives up, for good, every right beyond those of the plan's uid: capabilities, set-uid programs, new
/// namespaces, mounts. `rules` say whether the uid must be changed.
Result<void> drop_privileges(const LaunchPlan& plan, const SandboxRules& rules);

/// The environment of a rank, complete: defaults, then the plan's, then the rank's, then what selects its
/// GPUs. "NAME=value" each.
std::vector<std::string> environment(const LaunchPlan& plan, std::size_t rank, const SandboxRules& rules);

}  // namespace lathe::engines
