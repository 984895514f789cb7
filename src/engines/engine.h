#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engines/launch_plan.h"

namespace lathe::engines {

enum class RankState {
  starting,  ///< accepted; its command does not run yet
  running,
  ended,
};

/// Why a rank is over. Exactly one of them, the first cause, not its consequences.
enum class EndCause {
  exited,          ///< by itself, with exit_code; 0 is success
  signaled,        ///< by `signal`, which the engine did not send
  out_of_memory,   ///< killed at its memory limit
  time_limit,      ///< the plan's time limit
  stopped,         ///< stop()
  sibling_failed,  ///< another rank failed first, so this one was stopped
  launch_failed,   ///< it never ran: `message` says what is wrong with the plan or the machine
  lost,            ///< it vanished with its supervisor or its node: nobody knows how it ended, but it is over
};
std::string_view name(EndCause cause);

struct RankEnd {
  EndCause cause = EndCause::exited;
  std::optional<int> exit_code;  ///< where it exited by itself, also after a polite stop
  std::optional<int> signal;     ///< what killed it
  Time at{};
  Text message;  ///< one sentence for the user: "exited with code 7", "train.py: command not found"
  double cpu_seconds = 0;
  std::int64_t memory_peak_bytes = 0;  ///< 0: unknown
  bool success() const { return cause == EndCause::exited && exit_code == 0; }
};

struct RankStatus {
  RankState state = RankState::starting;
  std::int64_t pid = 0;  ///< of the rank's main process on its node, 0: unknown
  std::string node;      ///< where it runs, "" for this machine
  std::optional<Time> started_at;
  std::optional<RankEnd> end;  ///< set exactly when state is ended
};

struct RunStatus {
  std::string run_id;
  RankState state = RankState::starting;  ///< ended when all ranks are; running when all have started
  std::vector<RankStatus> ranks;
  /// Why it waits, in the engine's own words ("Pending: (Resources)"); empty for engines that never wait.
  Text detail;
  std::optional<Time> started_at;
  std::optional<Time> ended_at;
  /// Of an ended run: the end that is the run's, i.e. the rank that failed first, or rank 0 if none did.
  const RankEnd& verdict() const { return *ranks[verdict_rank].end; }
  std::size_t verdict_rank = 0;
};

/// What a run uses at this moment, all ranks together.
struct Usage {
  double cpu_seconds = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t memory_peak_bytes = 0;
};

/// What this engine can hold a run to on this machine. `shortcomings` names in words everything it cannot,
/// and is logged at start.
struct Capabilities {
  bool usable = true;  ///< false: start() refuses everything, and the first shortcoming says why
  bool limits_memory = false;
  bool limits_cpu = false;
  bool limits_pids = false;
  bool isolates_files = false;
  bool isolates_processes = false;
  bool isolates_network = false;
  bool gpu_shares = false;
  bool runs_images = false;  ///< false: only "host", the machine's own software
  std::vector<Text> shortcomings;
};

/// Runs plans. Every method is safe from any thread and quick (milliseconds; engines that talk to a remote
/// scheduler: seconds at most, under a timeout), and never waits for a run to do something.
///
/// An engine keeps no promise in memory only: what start() acknowledged goes on when the server is killed,
/// and an engine constructed over the same state knows and continues to watch every run that was not removed.
class Engine {
 public:
  virtual ~Engine() = default;

  /// "process", "docker", …
  virtual std::string_view name() const = 0;
  virtual Capabilities capabilities() const = 0;

  /// Starts a run: all ranks or none. Starting a run id again is no error and starts nothing: a caller that
  /// does not know whether it started (because it was killed in between) just starts again. What can only be
  /// found out later (a missing file, a wrong command) is an end with launch_failed, not an error here.
  /// Errors: invalid_argument (the plan), failed_precondition (this machine cannot, e.g. a GPU share without
  /// MPS), unavailable (try again).
  virtual Result<void> start(const LaunchPlan& plan) = 0;

  /// not_found: never started, or removed: start() it (again), or forget it.
  virtual Result<RunStatus> inspect(const std::string& run_id) = 0;

  /// Asks a run to end: SIGTERM to all its processes, SIGKILL after the plan's stop_grace. Returns at once;
  /// no error if it has ended or is being stopped. A run that is stopped before its command runs never
  /// runs. `grace` overrides the plan's (0: at once).
  virtual Result<void> stop(const std::string& run_id, std::optional<Duration> grace = std::nullopt) = 0;

  /// Forgets an ended run and clears up after it (cgroups, containers, records; never logs). After it the
  /// run id must not be started again. failed_precondition: it has not ended. No error if it is unknown.
  virtual Result<void> remove(const std::string& run_id) = 0;

  /// Every run that was started and not removed, whoever started it: what the caller does not know is an
  /// orphan.
  virtual Result<std::vector<std::string>> list() = 0;

  /// What the run uses now; of an ended run, what it used. Zeros where the engine cannot tell.
  virtual Result<Usage> usage(const std::string& run_id) = 0;

  /// `callback(run_id)` is called, from a thread of the engine and holding no lock of it, soon after
  /// something about a run has changed: a hint to inspect it, which may come twice or, after a crash, not at
  /// all (so look at all runs once at start and now and then). Set once, before the first start(); the
  /// destructor returns after the last call.
  virtual void on_change(std::function<void(const std::string& run_id)> callback) = 0;
};

}  // namespace lathe::engines
