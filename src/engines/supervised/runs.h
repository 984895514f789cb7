#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/directory.h"
#include "base/fd.h"
#include "engines/engine.h"
#include "engines/supervised/record.h"
#include "engines/supervised/watcher.h"

namespace lathe::engines {

/// Whose the runs of a state directory are, in short: another for every directory, by whatever name it is
/// reached, since servers may share a machine or a daemon, and a directory may be a copy of another's.
std::string owner_of(const std::string& state_dir);

/// What engines of this machine have in common: the runs below one directory, a folder and a supervisor each
/// (see record.h). The supervisor is a process that outlives the server; the folder's files are the truth, so
/// whoever opens the directory again goes on where the last one was killed. Methods keep the contract of
/// Engine's of the same name, and are safe from any thread.
class SupervisedRuns {
 public:
  struct Options {
    std::string state_dir;  ///< made where absent, of this engine alone
    /// Starts a supervisor: this program with the run's id as one more argument, in the run's folder. Must
    /// reach supervise_main.
    std::vector<std::string> supervisor;
    /// What an unfinished rank uses now. `start`: where it runs.
    std::function<Usage(const LaunchRecord&, std::size_t rank, const std::optional<StartRecord>& start)>
        usage;
    /// Ends and removes what a rank may have left behind. Called with nobody supervising it; again by
    /// remove(). An error: it is still there.
    std::function<Result<void>(const LaunchRecord&, std::size_t rank)> clear;
    /// Of a run that an earlier engine accepted and nobody is known to supervise: true to supervise it now;
    /// false: launch() or give_up() will be called. Unset: true.
    std::function<bool(const LaunchRecord&)> resume = {};
    /// A supervisor died with its run unfinished: what it asked others for may still come.
    std::function<void(const LaunchRecord&)> abandoned = {};
  };
  /// Throws std::runtime_error if the directory cannot be used.
  explicit SupervisedRuns(Options options);

  /// Takes up what an earlier engine left. Once, before anything else.
  void adopt();
  const std::string& state_dir() const { return options_.state_dir; }
  const std::string& owner() const { return owner_; }

  /// Is it started, or being started? Then starting it again does nothing.
  bool known(const std::string& run_id);
  /// Writes the run down, with the owner, and supervises it.
  Result<void> start(const LaunchRecord& record);
  /// Writes the run down; launch() or give_up() must follow. `detail` is what it waits for.
  Result<void> accept(const LaunchRecord& record, Text detail);
  void launch(const std::string& run_id);
  /// Ends an accepted run that cannot be launched.
  void give_up(const std::string& run_id, const Text& why);
  void set_detail(const std::string& run_id, Text detail);
  /// Is it accepted and not yet launched, given up or stopped?
  bool waiting(const std::string& run_id);

  Result<RunStatus> inspect(const std::string& run_id);
  Result<void> stop(const std::string& run_id, std::optional<Duration> grace);
  Result<void> remove(const std::string& run_id);
  Result<std::vector<std::string>> list();
  Result<Usage> usage(const std::string& run_id);
  void on_change(std::function<void(const std::string& run_id)> callback);

 private:
  /// Everything the folder says about the ranks, at one moment.
  struct Records {
    std::vector<std::optional<StartRecord>> starts;
    std::vector<std::optional<EndRecord>> ends;
    bool complete() const;
  };
  class Starting;

  std::string path(const std::string& run_id) const { return options_.state_dir + "/" + run_id; }
  Result<RunFolder> folder(const std::string& run_id) const;
  Result<void> write_down(LaunchRecord record);
  Result<void> clear(const LaunchRecord& launch, std::size_t rank) const;
  void adopt(const std::string& run_id);
  void watch_supervisor(const std::string& run_id, const RunFolder& run);
  Result<void> supervise(const std::string& run_id);
  void forget(const std::string& run_id);
  bool is_launching(const std::string& run_id);
  void launched(const std::string& run_id, const RunFolder& run);
  Result<void> settle(const std::string& run_id, const RunFolder& run, const LaunchRecord& launch);
  static Result<Records> read_records(const RunFolder& run, std::size_t ranks);
  Result<void> write_missing_ends(const RunFolder& run, const LaunchRecord& launch, EndCause cause,
                                  const std::optional<Text>& why = std::nullopt);

  Options options_;
  std::string owner_;
  Directory root_;
  SystemClock clock_;
  std::mutex mutex_;
  std::set<std::string> starting_;       ///< start() is under way in this process
  std::map<std::string, Text> waiting_;  ///< accepted, to be launched; and why not yet
  std::set<std::string> watched_;        ///< the watcher has the supervisor
  std::map<std::string, Fd> launching_;  ///< supervisors that were started and have not been seen to claim
  Watcher watcher_;                      // last: its thread ends first
};

}  // namespace lathe::engines
