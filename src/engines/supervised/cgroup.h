#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/fields.h"
#include "base/result.h"
#include "engines/launch_plan.h"

namespace lathe::engines {

/// A directory of a cgroup hierarchy.
struct CgroupPart {
  std::string controller;  ///< v1: "memory", "cpu", "cpuacct" or "pids"; v2: "unified"
  std::string directory;   ///< absolute
};
void fields(Fields& f, CgroupPart& p);

/// One group of processes, held to its limits by the kernel: a directory in cgroup v2, or one of the same
/// name in each v1 hierarchy. A handle; several may stand for the same group.
class Cgroup {
 public:
  explicit Cgroup(std::vector<CgroupPart> parts = {}) : parts_(std::move(parts)) {}
  /// The group in which a process is, whoever made it. Without parts where that cannot be found out.
  static Cgroup of_process(std::int64_t pid);

  /// Makes the directories and sets the limits. What exists already is used as it is.
  Result<void> create(const Resources& limits) const;
  /// v1: files to which a single-threaded process writes "0" to enter the group. (Writing to cgroup.procs
  /// makes the kernel wait for an RCU grace period, which takes many milliseconds.)
  std::vector<Fd> entrances() const;
  /// v2: the directory, for clone3's CLONE_INTO_CGROUP.
  Fd clone_target() const;
  std::int64_t memory() const;
  std::int64_t memory_peak() const;
  /// Seconds; nothing where no controller accounts for it.
  std::optional<double> cpu_seconds() const;
  /// Processes the kernel killed because the group was at its memory limit.
  std::int64_t oom_kills() const;
  /// Kills everything in it and removes it; no error if it is not there. False if something would not die
  /// within a moment.
  bool destroy() const;

 private:
  const std::string* directory(const char* controller) const;
  std::vector<CgroupPart> parts_;
};

/// Where this process may make groups.
class CgroupTree {
 public:
  /// Looks at this machine: below the process's own group, so that no limit it is under is escaped, or where
  /// that cannot be, at the top. With cgroup v2 this may move the calling process into a leaf "lathe-server"
  /// of its group, since a group with processes cannot have groups with controllers in it.
  static CgroupTree discover();
  explicit CgroupTree(std::vector<CgroupPart> bases = {}) : bases_(std::move(bases)) {}

  /// Is `controller` ("memory", "cpu", "pids") at hand?
  bool has(const std::string& controller) const;
  Cgroup group(const std::string& name) const;
  const std::vector<CgroupPart>& bases() const { return bases_; }

 private:
  std::vector<CgroupPart> bases_;
};

}  // namespace lathe::engines
