#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "jobs/board.h"
#include "jobs/decide.h"
#include "jobs/lifecycle.h"
#include "jobs/monitor.h"

namespace lathe::jobs {

/// What else holds the machines' resources: serving.
class HoldingSource {
 public:
  virtual ~HoldingSource() = default;
  struct Held {
    admission::Holding holding;
    std::string engine;
    std::vector<engines::GpuGrant> gpus;
  };
  /// At this moment. Called on the reconciler's thread; must not block.
  virtual std::vector<Held> holdings() = 0;
};

/// Moves jobs: from the board it sees what is open, decides (admission.h, decide.h: pure), writes the intent
/// down, tells the engine, and writes down what came of it. One thread; woken by hints, and by a slow tick
/// that makes up for every hint that was lost. Killed at any point, it goes on at the next start from what is
/// in the database and what the engines know.
class Reconciler {
 public:
  /// `holdings` are asked at every decision; all references must outlive it.
  Reconciler(const Platform& platform, const Launcher& launcher, Board& board, Lifecycle& lifecycle,
             Monitor& monitor, Duration tick, Duration first_pause);
  ~Reconciler();
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  /// Before start.
  void add_holdings(HoldingSource& source) { sources_.push_back(&source); }
  /// Adopts what runs, clears up what nobody knows any more, and begins. Blocks until everything that holds
  /// resources is on the board; the queue, which may be long, is read by the thread before it admits anyone.
  Result<void> start();
  /// Ends its thread.
  void stop();

  // Hints. Safe from any thread.
  /// Somebody may start: a job was queued, something ended, a quota or an import changed.
  void wake();
  /// Something about this run may have changed.
  void run_changed(const std::string& run_id);

  /// One round of everything, on the caller's thread: for tests without the thread.
  void step();

 private:
  using Ended = Lifecycle::Ended;

  void run();
  void load_queue();
  void admit();
  admission::Snapshot snapshot();
  /// Why queued jobs cannot be considered at all, asked once for each model version and image of a round.
  class Inputs;
  struct Start {
    std::string job_id, engine;
    store::Granted granted;
  };
  /// Unlocks `granting` once the board knows of them.
  void begin(std::vector<Start> starts, std::unique_lock<std::mutex> granting);
  void launch(const Job& job, const store::Run& run);
  void observe(const std::string& run_id);
  void observe_active();
  EngineView view(const OpenJob& job);
  void act(const OpenJob& job, const EngineView& view, const Decision& decision);
  void note_running(const OpenJob& job, const EngineView& view);
  void finish(const OpenJob& job, Ended ended, int verdict_rank, bool restart);
  void write_end(const std::string& job_id, const std::string& run_id, Ended ended, int verdict_rank,
                 bool restart);
  void forget_stray(const std::string& run_id);
  void resync(const std::string& job_id);
  void back_off(const OpenJob& job);
  engines::Engine* engine_of(const OpenJob& job);

  const Platform& platform_;
  const Launcher& launcher_;
  Board& board_;
  Lifecycle& lifecycle_;
  Monitor& monitor_;
  const Duration tick_, first_pause_;
  std::vector<HoldingSource*> sources_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool admission_due_ = false, stop_ = false;
  bool queue_loaded_ = false;  ///< the thread's own
  std::set<std::string> changed_;
  std::thread thread_;
};

}  // namespace lathe::jobs
