#include "jobs/lifecycle.h"

#include <fmt/format.h>

#include <stdexcept>

namespace lathe::jobs {

namespace {

constexpr std::string_view kRunPrefix = "job-";

void move(Job& job, JobState to) {
  if (!may_move(job.state, to))
    throw std::logic_error(fmt::format("job {}: {} -> {}", job.id, name(job.state), name(to)));
  job.state = to;
}

/// Somebody else was quicker: the whole transaction starts from what is not true any more.
void save(db::Transaction& tx, Job& job) {
  if (!store::update_job(tx, job))
    throw db::Failure{{Code::unavailable, {"任务刚被更改，请重试", "the job has just changed; try again"}}};
}

Text state_words(JobState state) {
  switch (state) {
    case JobState::queued:
      return {"重新排队", "queued again"};
    case JobState::starting:
      return {"资源已分配，正在启动", "resources granted, starting"};
    case JobState::running:
      return {"开始运行", "running"};
    case JobState::stopping:
      return {"正在停止", "stopping"};
    case JobState::succeeded:
    case JobState::failed:
    case JobState::cancelled:
      break;
  }
  return {};
}

}  // namespace

std::string run_id_of(const std::string& job_id, int attempt) {
  return fmt::format("{}{}-{}", kRunPrefix, job_id, attempt);
}

std::string job_of_run(std::string_view run_id) {
  if (!run_id.starts_with(kRunPrefix)) return {};
  run_id.remove_prefix(kRunPrefix.size());
  return std::string(run_id.substr(0, run_id.rfind('-')));
}

void Lifecycle::record(db::Transaction& tx, const Job& job, std::string log) {
  Text words = state_words(job.state);
  if (job.cause.reason != Reason::none) words = describe(job.cause);
  store::insert_event(tx, {.job_id = job.id,
                           .id = ids_.next(),
                           .at = clock_.now(),
                           .attempt = job.attempt,
                           .state = std::string(name(job.state)),
                           .reason = label(job.cause),
                           .zh = std::move(words.zh),
                           .en = std::move(words.en),
                           .log = std::move(log)});
}

std::optional<Job> Lifecycle::begin(db::Transaction& tx, const std::string& job_id, const std::string& engine,
                                    store::Granted granted) {
  auto job = store::find_job(tx, job_id);
  if (!job || job->state != JobState::queued) return std::nullopt;
  move(*job, JobState::starting);
  job->run_id = run_id_of(job->id, job->attempt);
  job->cause = {};
  save(tx, *job);
  store::insert_run(tx, {.run_id = job->run_id,
                         .job_id = job->id,
                         .attempt = job->attempt,
                         .engine = engine,
                         .granted = std::move(granted),
                         .created_at = clock_.now()});
  record(tx, *job);
  return job;
}

std::optional<Job> Lifecycle::running(db::Transaction& tx, const std::string& job_id, Time started_at) {
  auto job = store::find_row(tx, job_id);
  if (!job || job->state != JobState::starting) return std::nullopt;
  move(*job, JobState::running);
  job->started_at = started_at;
  save(tx, *job);
  store::set_run_started(tx, job->run_id, started_at);
  record(tx, *job);
  return job;
}

void Lifecycle::close_run(db::Transaction& tx, const Job& job, const Ended& ended) {
  if (job.run_id.empty()) return;
  store::end_run(tx, {.run_id = job.run_id,
                      .started_at = ended.started_at,
                      .ended_at = ended.at,
                      .cause = ended.cause,
                      .cpu_seconds = ended.cpu_seconds,
                      .memory_peak_bytes = ended.memory_peak_bytes});
}

std::optional<Job> Lifecycle::finish(db::Transaction& tx, const std::string& job_id, const Ended& ended) {
  auto job = store::find_row(tx, job_id);
  if (!job || is_ended(job->state)) return std::nullopt;
  const JobState to = resting_state(ended.cause.reason);
  // A run that stop() ended counts as stopped whoever wrote first: the request came in while it was ending.
  if (to == JobState::cancelled && is_active(job->state) && job->state != JobState::stopping)
    move(*job, JobState::stopping);
  move(*job, to);
  job->cause = ended.cause;
  if (ended.started_at && !job->started_at) job->started_at = ended.started_at;
  job->ended_at = ended.at;
  if (to == JobState::succeeded) job->progress = 1;
  save(tx, *job);
  close_run(tx, *job, ended);
  record(tx, *job, ended.log);
  return job;
}

std::optional<Job> Lifecycle::restart(db::Transaction& tx, const std::string& job_id, const Ended& ended) {
  auto job = store::find_job(tx, job_id);
  if (!job || (job->state != JobState::starting && job->state != JobState::running)) return std::nullopt;
  close_run(tx, *job, ended);
  move(*job, JobState::queued);
  job->cause = {.reason = Reason::waiting_to_restart, .detail = describe(ended.cause)};
  ++job->attempt;
  job->run_id.clear();
  job->started_at.reset();
  job->queued_at = clock_.now();
  save(tx, *job);
  record(tx, *job, ended.log);
  return job;
}

Result<Job> Lifecycle::retry(db::Transaction& tx, const std::string& job_id) {
  auto job = store::find_job(tx, job_id);
  if (!job) return not_found({"任务", "job"}, job_id);
  if (!is_ended(job->state))
    return Error{Code::failed_precondition,
                 {"任务尚未结束，不能重试", "the job is not over: it cannot be retried"}};
  move(*job, JobState::queued);
  job->cause = {};
  ++job->attempt;
  job->run_id.clear();
  job->progress = 0;
  job->started_at.reset();
  job->ended_at.reset();
  job->queued_at = clock_.now();
  save(tx, *job);
  record(tx, *job);
  return std::move(*job);
}

Result<Job> Lifecycle::stop(db::Transaction& tx, const std::string& job_id) {
  auto job = store::find_row(tx, job_id);
  if (!job) return not_found({"任务", "job"}, job_id);
  switch (job->state) {
    case JobState::queued:
      move(*job, JobState::cancelled);
      job->ended_at = clock_.now();
      break;
    case JobState::starting:
    case JobState::running:
      move(*job, JobState::stopping);
      break;
    case JobState::stopping:
      return std::move(*job);
    default:
      return Error{Code::failed_precondition, {"任务已结束", "the job is already over"}};
  }
  job->cause = {.reason = Reason::stopped_by_user};
  save(tx, *job);
  record(tx, *job);
  return std::move(*job);
}

}  // namespace lathe::jobs
