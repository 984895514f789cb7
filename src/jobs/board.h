#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "jobs/admission.h"
#include "jobs/jobs_store.h"

namespace lathe::jobs {

/// A job that is not over, as far as deciding about it needs. A hundred thousand of them are kept: what is
/// rarely there belongs elsewhere.
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
  std::optional<Time> not_before;  ///< neither started nor asked about earlier
  int failures = 0;                ///< of the engine, in a row
  bool finishing = false;          ///< it is over; that is being written down
};
/// As it was at one moment; a change makes another one.
using OpenJobPtr = std::shared_ptr<const OpenJob>;

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

  /// Null if it is not on the board.
  OpenJobPtr find(const std::string& job_id) const;
  /// The job whose current run it is, or null.
  OpenJobPtr find_run(const std::string& run_id) const;
  /// Changes what only the board knows (not_before, failures, finishing).
  void note(const std::string& job_id, const std::function<void(OpenJob&)>& change);
  /// In the order of their ids.
  std::vector<OpenJobPtr> queued() const;
  std::vector<OpenJobPtr> active() const;
  struct Counts {
    std::size_t queued = 0, active = 0;
  };
  Counts counts() const;

  /// Why each queued job waits, as of one decision: `causes[i]` is that of `jobs[i]`, null for none. `jobs`
  /// in the order of their ids.
  void set_waits(std::vector<OpenJobPtr> jobs, std::vector<std::shared_ptr<const Cause>> causes);
  /// Null: nothing is known of it yet.
  std::shared_ptr<const Cause> wait_of(const std::string& job_id) const;

 private:
  struct ById {
    using is_transparent = void;
    static std::string_view id(const OpenJobPtr& job) { return job->candidate.id; }
    static std::string_view id(std::string_view id) { return id; }
    template <class A, class B>
    bool operator()(const A& a, const B& b) const {
      return id(a) < id(b);
    }
  };
  using Jobs = std::set<OpenJobPtr, ById>;

  OpenJobPtr find_locked(std::string_view job_id) const;
  void put(std::shared_ptr<OpenJob> job);
  void erase(std::string_view job_id);
  std::shared_ptr<const admission::Demand> demand_of(const Job& job);

  mutable std::mutex mutex_;
  Jobs queued_, active_;
  std::vector<OpenJobPtr> wait_jobs_;
  std::vector<std::shared_ptr<const Cause>> wait_causes_;
  // By a digest of what they ask; those that nobody asks any more are dropped when others are sought.
  std::unordered_multimap<std::size_t, std::weak_ptr<const admission::Demand>> demands_;
};

}  // namespace lathe::jobs
