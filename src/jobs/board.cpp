#include "jobs/board.h"

#include <algorithm>

#include "jobs/lifecycle.h"

namespace lathe::jobs {

void Board::update(const Job& job, const std::string& engine, const store::Granted& granted) {
  const std::lock_guard lock(mutex_);
  const OpenJobPtr before = find_locked(job.id);
  if (before && before->version >= job.version) {
    // A stop has overtaken the start it stops: what the start was given still counts.
    if (before->engine.empty() && before->run_id == job.run_id && is_active(before->state)) {
      auto open = std::make_shared<OpenJob>(*before);
      open->engine = engine;
      open->granted = granted;
      put(std::move(open));
    }
    return;
  }
  if (is_ended(job.state)) return erase(job.id);
  if (!before && job.spec.groups.empty()) return;
  auto open = before ? std::make_shared<OpenJob>(*before) : std::make_shared<OpenJob>();
  if (!job.spec.groups.empty()) {
    open->candidate.demand = demand_of(job);
    open->candidate.priority = job.spec.priority;
    open->candidate.urgent = job.spec.urgent;
    open->candidate.time_limit = std::chrono::seconds(job.spec.time_limit_s);
    open->model_version_id = job.spec.model_version_id;
    open->image_id = job.spec.image_id;
  }
  open->candidate.id = job.id;
  open->candidate.queued_at = job.queued_at;
  open->kind = job.spec.kind;
  open->version = job.version;
  open->attempt = job.attempt;
  if (open->run_id != job.run_id || job.state == JobState::queued) {
    open->not_before.reset();
    open->failures = 0;
    open->finishing = false;
  }
  open->run_id = job.run_id;
  open->state = job.state;
  if (job.state == JobState::queued) {
    open->engine.clear();
    open->granted = {};
  } else if (!engine.empty()) {
    open->engine = engine;
    open->granted = granted;
    open->since = job.started_at.value_or(job.queued_at);
  }
  if (job.started_at) open->since = *job.started_at;
  put(std::move(open));
}

void Board::remove(const std::string& job_id) {
  const std::lock_guard lock(mutex_);
  erase(job_id);
}

OpenJobPtr Board::find(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  return find_locked(job_id);
}

OpenJobPtr Board::find_run(const std::string& run_id) const {
  auto job = find(job_of_run(run_id));
  return job && job->run_id == run_id ? job : nullptr;
}

void Board::note(const std::string& job_id, const std::function<void(OpenJob&)>& change) {
  const std::lock_guard lock(mutex_);
  const OpenJobPtr before = find_locked(job_id);
  if (!before) return;
  auto open = std::make_shared<OpenJob>(*before);
  change(*open);
  put(std::move(open));
}

std::vector<OpenJobPtr> Board::queued() const {
  const std::lock_guard lock(mutex_);
  return {queued_.begin(), queued_.end()};
}

std::vector<OpenJobPtr> Board::active() const {
  const std::lock_guard lock(mutex_);
  return {active_.begin(), active_.end()};
}

Board::Counts Board::counts() const {
  const std::lock_guard lock(mutex_);
  return {queued_.size(), active_.size()};
}

void Board::set_waits(std::vector<OpenJobPtr> jobs, std::vector<std::shared_ptr<const Cause>> causes) {
  const std::lock_guard lock(mutex_);
  // Swapped, so that the old ones are freed after the lock.
  wait_jobs_.swap(jobs);
  wait_causes_.swap(causes);
}

std::shared_ptr<const Cause> Board::wait_of(const std::string& job_id) const {
  const std::lock_guard lock(mutex_);
  const auto at = std::lower_bound(wait_jobs_.begin(), wait_jobs_.end(), std::string_view(job_id), ById());
  if (at == wait_jobs_.end() || (*at)->candidate.id != job_id) return nullptr;
  return wait_causes_[static_cast<std::size_t>(at - wait_jobs_.begin())];
}

// ---- under the lock --------------------------------------------------------------------------------------

OpenJobPtr Board::find_locked(std::string_view job_id) const {
  for (const Jobs* jobs : {&active_, &queued_})
    if (const auto at = jobs->find(job_id); at != jobs->end()) return *at;
  return nullptr;
}

void Board::put(std::shared_ptr<OpenJob> job) {
  erase(job->candidate.id);
  // Ids are ordered by time: what is new belongs at the end.
  Jobs& jobs = is_active(job->state) ? active_ : queued_;
  jobs.insert(jobs.end(), std::move(job));
}

void Board::erase(std::string_view job_id) {
  for (Jobs* jobs : {&active_, &queued_})
    if (const auto at = jobs->find(job_id); at != jobs->end()) jobs->erase(at);
}

std::shared_ptr<const admission::Demand> Board::demand_of(const Job& job) {
  const std::vector<RankGroup>& groups = job.spec.groups;
  const ResourceTotal total = total_of(groups);
  std::size_t digest = std::hash<std::string>()(job.user_id) + std::hash<std::string>()(job.spec.group_id);
  for (const std::int64_t part : {total.cpu, total.memory_gb, total.gpu, total.vgpu, total.mig})
    digest = digest * 31 + static_cast<std::size_t>(part);
  const auto [first, last] = demands_.equal_range(digest);
  for (auto at = first; at != last;) {
    auto known = at->second.lock();
    if (known && known->user_id == job.user_id && known->group_id == job.spec.group_id &&
        known->groups == groups)
      return known;
    at = known ? std::next(at) : demands_.erase(at);
  }
  auto made = std::make_shared<const admission::Demand>(job.user_id, job.spec.group_id, groups);
  demands_.emplace(digest, made);
  return made;
}

}  // namespace lathe::jobs
