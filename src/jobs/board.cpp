#include "jobs/board.h"

#include "jobs/lifecycle.h"

namespace lathe::jobs {

void Board::update(const Job& job, const std::string& engine, const store::Granted& granted) {
  const std::lock_guard lock(mutex_);
  const auto at = jobs_.find(job.id);
  if (at != jobs_.end() && at->second.version >= job.version) {
    // A stop has overtaken the start it stops: what the start was given still counts.
    if (at->second.engine.empty() && at->second.run_id == job.run_id && is_active(at->second.state)) {
      at->second.engine = engine;
      at->second.granted = granted;
    }
    return;
  }
  if (is_ended(job.state)) {
    if (at != jobs_.end()) jobs_.erase(at);
    return;
  }
  if (at == jobs_.end() && job.spec.groups.empty()) return;
  OpenJob& open = jobs_[job.id];
  if (!job.spec.groups.empty()) {
    open.candidate.groups = job.spec.groups;
    open.candidate.group_id = job.spec.group_id;
    open.candidate.priority = job.spec.priority;
    open.candidate.urgent = job.spec.urgent;
    open.candidate.time_limit = std::chrono::seconds(job.spec.time_limit_s);
    open.model_version_id = job.spec.model_version_id;
    open.image_id = job.spec.image_id;
  }
  open.candidate.id = job.id;
  open.candidate.user_id = job.user_id;
  open.candidate.queued_at = job.queued_at;
  open.kind = job.spec.kind;
  open.version = job.version;
  open.attempt = job.attempt;
  if (open.run_id != job.run_id || job.state == JobState::queued) {
    open.not_before.reset();
    open.failures = 0;
    open.finishing = false;
  }
  open.run_id = job.run_id;
  open.state = job.state;
  open.waits = job.state == JobState::queued ? job.cause : Cause{};
  if (job.state == JobState::queued) {
    open.engine.clear();
    open.granted = {};
  } else if (!engine.empty()) {
    open.engine = engine;
    open.granted = granted;
    open.since = job.started_at.value_or(job.queued_at);
  }
  if (job.started_at) open.since = *job.started_at;
}

void Board::remove(const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  jobs_.erase(job_id);
}

std::optional<OpenJob> Board::find(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  const auto at = jobs_.find(job_id);
  if (at == jobs_.end()) return std::nullopt;
  return at->second;
}

std::optional<OpenJob> Board::find_run(const std::string& run_id) const {
  auto job = find(job_of_run(run_id));
  if (job && job->run_id != run_id) job.reset();
  return job;
}

void Board::note(const std::string& job_id, const std::function<void(OpenJob&)>& change) {
  const std::lock_guard lock(mutex_);
  const auto at = jobs_.find(job_id);
  if (at != jobs_.end()) change(at->second);
}

Cause Board::wait_of(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  const auto at = jobs_.find(job_id);
  return at == jobs_.end() ? Cause{} : at->second.waits;
}

std::vector<OpenJob> Board::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<OpenJob> out;
  out.reserve(jobs_.size());
  for (const auto& [id, job] : jobs_) out.push_back(job);
  return out;
}

std::vector<OpenJob> Board::active() const {
  const std::lock_guard lock(mutex_);
  std::vector<OpenJob> out;
  for (const auto& [id, job] : jobs_)
    if (is_active(job.state)) out.push_back(job);
  return out;
}

Board::Counts Board::counts() const {
  const std::lock_guard lock(mutex_);
  Counts out;
  for (const auto& [id, job] : jobs_) ++(job.state == JobState::queued ? out.queued : out.active);
  return out;
}

}  // namespace lathe::jobs
