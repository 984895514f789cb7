#pragma once

#include <optional>
#include <string>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/json.h"
#include "engines/engine.h"
#include "engines/launch_plan.h"
#include "engines/process/sandbox.h"
#include "engines/supervised/cgroup.h"

/// What engines of this machine and their supervisors tell each other: the files of a run's folder. They are
/// the truth about a run, whoever is alive.
///
///   launch.json       what to run and how; complete when it is there
///   lock              locked (F_OFD_SETLK) as long as the supervisor or any process of the run lives
///   room              space that is set aside for the end records, given up when the disk is full
///   claim.json        made once: the run has started, or never will
///   control           a FIFO: a byte tells the supervisor to look for stop.json
///   stop.json         somebody wants the run to end
///   rank-N.start.json the rank runs
///   rank-N.end.json   the rank is over
namespace lathe::engines {

/// How a daemon that speaks the Docker Engine API runs the ranks, each in a container.
struct ContainerLaunch {
  std::string socket;  ///< of the daemon, a path
  std::string image;   ///< as the daemon knows it
  std::string first;   ///< path of the program that is the first of every container
  std::string gpus;    ///< how accelerators are asked for: "requests", "cdi"
};
void fields(Fields& f, ContainerLaunch& c);

struct LaunchRecord {
  LaunchPlan plan;
  std::string owner = {};  ///< see owner_of
  std::optional<ContainerLaunch> container = {};
  // Of processes only:
  SandboxRules rules = {};
  std::vector<CgroupPart> cgroups = {};  ///< where the run's groups are made
  // What no cgroup limits, each process is limited to by itself.
  bool memory_by_process = false;
  bool pids_by_process = false;
};
void fields(Fields& f, LaunchRecord& r);
/// What a rank is called among all that this machine runs: its cgroup, or its container. The same whoever
/// asks: what is there already is not made again.
std::string rank_name(const LaunchRecord& record, std::size_t rank);
/// The group of a rank that is a process.
Cgroup rank_cgroup(const LaunchRecord& record, std::size_t rank);

struct ClaimRecord {
  std::int64_t pid = 0;  ///< of the supervisor; 0: claimed so that it never starts
};
void fields(Fields& f, ClaimRecord& r);

struct StartRecord {
  std::int64_t pid = 0;
  Time at{};
};
void fields(Fields& f, StartRecord& r);

struct EndRecord {
  std::int64_t order = 0;  ///< the ranks of a run in the order in which they ended, from 0
  RankEnd end;
};
void fields(Fields& f, EndRecord& r);

struct StopRecord {
  std::optional<std::int64_t> grace_ms;  ///< absent: the plan's
};
void fields(Fields& f, StopRecord& r);

/// One run's folder, held open. Everything happens relative to it, so that a folder that was removed and made
/// anew is never mixed up with its successor. Safe from any thread.
class RunFolder {
 public:
  static constexpr const char* kLaunch = "launch.json";
  static constexpr const char* kLock = "lock";
  static constexpr const char* kClaim = "claim.json";
  static constexpr const char* kControl = "control";
  static constexpr const char* kStop = "stop.json";
  static constexpr const char* kRoom = "room";
  static std::string start_name(std::size_t rank);
  static std::string end_name(std::size_t rank);

  /// not_found where there is none.
  static Result<RunFolder> open(int parent, const std::string& name);
  int fd() const { return fd_.get(); }

  /// Sets room aside for what must be written even if the run itself fills the disk. Without room now: not.
  void keep_room() const;
  /// False: there was none.
  bool give_up_room() const;

  /// Nothing where the file is absent; an error where it cannot be read.
  template <class T>
  Result<std::optional<T>> read(const std::string& name) const {
    auto text = read_whole_file(fd(), name);
    if (!text.ok() && text.error().code == Code::not_found) return std::optional<T>{};
    if (!text.ok()) return std::move(text).error();
    return std::optional<T>(TRY(json::parse_as<T>(*text)));
  }
  template <class T>
  Result<void> write(const std::string& name, const T& record, Durable durable) const {
    return replace_file(fd(), name, json::write(record), durable);
  }
  /// True for the one who made it.
  template <class T>
  Result<bool> write_once(const std::string& name, const T& record, Durable durable) const {
    return create_file_once(fd(), name, json::write(record), durable);
  }
  bool has(const char* name) const;

  /// The lock, taken; nothing if somebody has it or there is no lock file. Released when the descriptor and
  /// all its copies are closed.
  std::optional<Fd> lock() const;
  /// Does anybody have the lock? Asking does not take it.
  bool locked() const;

 private:
  explicit RunFolder(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace lathe::engines
