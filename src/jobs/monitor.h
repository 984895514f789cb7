#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "jobs/launcher.h"
#include "jobs/progress/checkpoints.h"
#include "jobs/progress/collector.h"

namespace lathe::jobs {

/// Reads what running jobs say of themselves, about every second: metrics, progress and checkpoints go into
/// the database. Has a thread of its own. Safe from any thread.
class Monitor {
 public:
  Monitor(const Platform& platform, const Launcher& launcher);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  void start();
  /// Ends the thread; what is asked of the monitor afterwards is never done.
  void stop();
  /// Begins to follow a run.
  void watch(const std::string& job_id);
  /// Has a last look at a run that has ended, then calls `done` on the monitor's thread.
  void finish(const std::string& job_id, bool succeeded, std::function<void()> done);

 private:
  struct Watch {
    std::string run_id;
    JobSpec spec;
    std::unique_ptr<progress::Collector> collector;
    std::optional<Directory> output, checkpoint;
    Time since{};
    double progress = 0;
    std::set<std::string> known;  ///< checkpoints, as "place path modified"
  };
  struct News {
    std::vector<store::Metric> metrics;
    std::optional<double> progress;
    std::vector<store::Checkpoint> checkpoints;
    std::vector<std::string> vanished;
    bool empty() const { return metrics.empty() && !progress && checkpoints.empty() && vanished.empty(); }
  };

  void run();
  void look_at_all();
  void last_look(const std::string& job_id, bool succeeded);
  std::unique_ptr<Watch> open(const std::string& job_id);
  News look(const std::string& job_id, Watch& watch);
  void look_for_checkpoints(const std::string& job_id, Watch& watch, News& news);
  void look_for_model(const std::string& job_id, Watch& watch, News& news);
  void write(const std::map<std::string, News>& news);

  const Platform& platform_;
  const Launcher& launcher_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::map<std::string, std::unique_ptr<Watch>> watches_;  ///< the thread's own
  std::thread thread_;
};

}  // namespace lathe::jobs
