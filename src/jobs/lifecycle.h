#pragma once

#include "base/ids.h"
#include "jobs/jobs_store.h"

/// Every change of a job's state, each within one transaction: the only writers of `state`. A change that is
/// not (or no longer) possible changes nothing and says so. Each leaves an event.
namespace lathe::jobs {

/// The run of an attempt: `job-<id>-<attempt>`, so that it needs no looking up.
std::string run_id_of(const std::string& job_id, int attempt);
/// The job's id of such a run; "" for any other run.
std::string job_of_run(std::string_view run_id);

class Lifecycle {
 public:
  Lifecycle(IdSource& ids, const Clock& clock) : ids_(ids), clock_(clock) {}

  /// queued → starting, with the run written down: from here on the engine may be told. Nothing if the job is
  /// not queued any more.
  std::optional<Job> begin(db::Transaction& tx, const std::string& job_id, const std::string& engine,
                           store::Granted granted);
  /// starting → running.
  std::optional<Job> running(db::Transaction& tx, const std::string& job_id, Time started_at);

  struct Ended {
    Cause cause;
    std::optional<Time> started_at;
    Time at{};
    double cpu_seconds = 0;
    std::int64_t memory_peak_bytes = 0;
    std::string log;  ///< its last lines
  };
  /// Anything not over → succeeded, failed or cancelled, by the cause.
  std::optional<Job> finish(db::Transaction& tx, const std::string& job_id, const Ended& ended);
  /// starting or running → queued, one attempt further: started again by the platform.
  std::optional<Job> restart(db::Transaction& tx, const std::string& job_id, const Ended& ended);
  /// An ended job → queued, one attempt further. failed_precondition: it is not over.
  Result<Job> retry(db::Transaction& tx, const std::string& job_id);
  /// queued → cancelled, starting or running → stopping; a job that is being stopped stays so.
  /// failed_precondition: it is over.
  Result<Job> stop(db::Transaction& tx, const std::string& job_id);

 private:
  void record(db::Transaction& tx, const Job& job, std::string log = {});
  void close_run(db::Transaction& tx, const Job& job, const Ended& ended);

  IdSource& ids_;
  const Clock& clock_;
};

}  // namespace lathe::jobs
