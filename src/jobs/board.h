#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "jobs/admission.h"
#include "jobs/jobs_store.h"

namespace lathe::jobs {

/// A job that is not over, as far as deciding about it needs.
struct OpenJob {
  admission::Candidate candidate;
  JobKind kind = JobKind::modelling;
  JobState state = JobState::queued;
  std::int64_t version = 0;
  int attempt = 1;
  std::string run_id;
  std::string engine;      ///< of an active one
  store::Granted granted;  ///< of an active one
  Time since{};            ///< when it began to hold its resources
  std::string model_version_id, image_id;
  Cause waits;                     ///< of a queued one: why
  std::optional<Time> not_before;  ///< neither started nor asked about earlier
  int failures = 0;                ///< of the engine, in a row
  bool finishing = false;          ///< it is over; that is being written down
};

/// All jobs that are not over, in memory: what the database says, so that a decision needs no query. Built at
/// start and told of every change after its commit. Changes may be told in any order: the row's version says
/// which is newer; one that comes too late for a job that is over is found out when it is acted upon. Safe
/// from any thread.
class Board {
 public:
  /// What is in the database now, as of a transaction that has committed. Without its spec (`spec.groups`) a
  /// job that is not on the board is not taken in.
  void update(const Job& job, const std::string& engine = {}, const store::Granted& granted = {});
  /// The job is gone.
  void remove(const std::string& job_id);

  std::optional<OpenJob> find(const std::string& job_id) const;
  /// The job whose current run it is.
  std::optional<OpenJob> find_run(const std::string& run_id) const;
  /// Changes what only the board knows (waits, not_before, failures, finishing).
  void note(const std::string& job_id, const std::function<void(OpenJob&)>& change);
  Cause wait_of(const std::string& job_id) const;
  std::vector<OpenJob> all() const;
  /// Active jobs only.
  std::vector<OpenJob> active() const;
  struct Counts {
    std::size_t queued = 0, active = 0;
  };
  Counts counts() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, OpenJob> jobs_;
};

}  // namespace lathe::jobs
