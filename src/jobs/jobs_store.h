#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/database.h"
#include "engines/gpu/gpu_pool.h"
#include "jobs/admission.h"
#include "jobs/job.h"

/// Jobs, their runs and what came of them, in the database. Functions of a transaction: they throw
/// db::Failure like it.
namespace lathe::jobs::store {

// ---- jobs ------------------------------------------------------------------------------------------------

/// As the table holds it. Made outside of the transaction: all writes share one thread.
std::string stored_spec(const JobSpec& spec);
/// `spec` is stored_spec(job.spec), `request` the documented request as JSON text, given back by the details.
void insert_job(db::Transaction& tx, const Job& job, std::string spec, std::string request);
bool exists(db::Transaction& tx, std::string_view id);
/// Without its spec (but `spec.kind` and `spec.group_id`): what lists need.
std::optional<Job> find_row(db::Transaction& tx, std::string_view id);
/// With its spec.
std::optional<Job> find_job(db::Transaction& tx, std::string_view id);
std::optional<JobSpec> find_spec(db::Transaction& tx, std::string_view id);
std::string find_request(db::Transaction& tx, std::string_view id);
/// Writes state, cause, progress, attempt, run and times of a job that was read at `job.version`, and adds
/// one to it. False: somebody else has changed it since, and nothing was written.
bool update_job(db::Transaction& tx, Job& job);
void set_progress(db::Transaction& tx, std::string_view id, double progress);
/// The job and everything about it.
void delete_job(db::Transaction& tx, std::string_view id);

/// All jobs that hold resources, with their specs.
std::vector<Job> active_jobs(db::Transaction& tx);
/// Queued ones with an id after that one, in the order of their ids, with their specs.
std::vector<Job> queued_jobs(db::Transaction& tx, std::string_view after, std::int64_t limit);
/// What active jobs hold; `user_id` "": everybody's.
ResourceTotal held_by(db::Transaction& tx, std::string_view user_id, std::int64_t& jobs);
std::int64_t open_jobs_of_user(db::Transaction& tx, std::string_view user_id);
std::int64_t open_jobs_of_group(db::Transaction& tx, std::string_view group_id);
/// The id of one job that is not over and uses it; nothing if there is none.
std::optional<std::string> open_user_of_model(db::Transaction& tx, std::string_view model_version_id);
std::optional<std::string> open_user_of_dataset(db::Transaction& tx, std::string_view dataset_version_id);
std::optional<std::string> open_user_of_image(db::Transaction& tx, std::string_view image_id);

// ---- lists -----------------------------------------------------------------------------------------------

struct Filter {
  std::vector<JobKind> kinds;          ///< any of these
  std::optional<std::string> user_id;  ///< nothing: everybody's
  std::string status;                  ///< the documented word, exactly; "": any
  std::string name_part;               ///< without regard to the case of ASCII letters; "": any
};
struct Listing {
  std::int64_t total = 0;
  std::vector<Job> jobs;  ///< rows, newest first
};
/// Rows `offset` … of the newest first. Every filter without `name_part` is answered from one index for each
/// kind, from the nearer end; `name_part` reads that index whole, of one user or of everybody.
Listing page(db::Transaction& tx, const Filter& filter, std::int64_t offset, std::int64_t limit);
/// Those older than `before` (an id; "" is the newest), at most `limit`.
std::vector<Job> older(db::Transaction& tx, const Filter& filter, std::string_view before,
                       std::int64_t limit);

/// The statements behind `page` and `older`, for tests of their plans.
struct Statement {
  std::string text;
  std::vector<db::Value> args;
};
std::vector<Statement> list_queries(const Filter& filter);
/// The statement behind `queued_jobs`.
Statement queue_query(std::string_view after, std::int64_t limit);

// ---- runs ------------------------------------------------------------------------------------------------

/// What a run was given and no other may have.
struct Granted {
  std::vector<std::vector<engines::GpuGrant>> gpus;  ///< a list for every rank
  std::int64_t port = 0;  ///< where its ranks meet; the next ones are the ranks' own
};

struct Run {
  std::string run_id;
  std::string job_id;
  int attempt = 1;
  std::string engine;
  Granted granted;
  Time created_at{};
  std::optional<Time> started_at, ended_at;
  Cause cause;
  double cpu_seconds = 0;
  std::int64_t memory_peak_bytes = 0;
};

void insert_run(db::Transaction& tx, const Run& run);
void end_run(db::Transaction& tx, const Run& run);
void set_run_started(db::Transaction& tx, std::string_view run_id, Time at);
std::optional<Run> find_run(db::Transaction& tx, std::string_view run_id);
std::vector<Run> runs_of(db::Transaction& tx, std::string_view job_id);
/// The current runs of jobs that hold resources.
std::vector<Run> active_runs(db::Transaction& tx);

// ---- what happened and what came of it -------------------------------------------------------------------

struct Event {
  std::string job_id;
  std::string id;
  Time at{};
  int attempt = 1;
  std::string state;   ///< the job's, from then on
  std::string reason;  ///< "ExitCode 7"
  std::string zh, en;
  std::string log;  ///< the last lines of the log, of an end that was no success
};
void insert_event(db::Transaction& tx, const Event& event);
std::vector<Event> events_of(db::Transaction& tx, std::string_view job_id, std::string_view after,
                             std::int64_t limit);

struct Metric {
  std::string name;
  std::int64_t step = 0;
  double value = 0;
  Time at{};
};
void put_metric(db::Transaction& tx, std::string_view job_id, const Metric& metric);
/// By name, then step, after that place; `name` "": all.
std::vector<Metric> metrics_of(db::Transaction& tx, std::string_view job_id, std::string_view name,
                               std::int64_t limit);
/// The last value of every metric.
std::vector<Metric> latest_metrics(db::Transaction& tx, std::string_view job_id);

struct Checkpoint {
  std::string id;
  std::string job_id;
  std::string place;  ///< "checkpoint" or "output"
  std::string path;   ///< below that directory; "" is itself
  std::string kind;   ///< "checkpoint" or "model" (finished)
  std::int64_t step = 0;
  std::int64_t size_bytes = 0;
  Time created_at{};
};
/// A known one (the same job, place and path) keeps its id and gets the new size and step.
void put_checkpoint(db::Transaction& tx, const Checkpoint& checkpoint);
void delete_checkpoint(db::Transaction& tx, std::string_view job_id, std::string_view place,
                       std::string_view path);
/// Newest step first.
std::vector<Checkpoint> checkpoints_of(db::Transaction& tx, std::string_view job_id);
std::optional<Checkpoint> find_checkpoint(db::Transaction& tx, std::string_view id);

// ---- files of deleted jobs -------------------------------------------------------------------------------

std::vector<std::string> trash(db::Transaction& tx);
void forget_trash(db::Transaction& tx, std::string_view job_id);

}  // namespace lathe::jobs::store
