#include "jobs/reconciler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "jobs/capacity.h"
#include "jobs/log_tail.h"

namespace lathe::jobs {

namespace {

constexpr Duration kLongestPause{30'000};
constexpr Duration kLongestRest{500};

bool is_refusal(Reason reason) {
  return info(reason).kind == ReasonClass::refused;
}

}  // namespace

Reconciler::Reconciler(const Platform& platform, const Launcher& launcher, Board& board, Lifecycle& lifecycle,
                       Monitor& monitor, Duration tick, Duration first_pause)
    : platform_(platform),
      launcher_(launcher),
      board_(board),
      lifecycle_(lifecycle),
      monitor_(monitor),
      tick_(tick),
      first_pause_(first_pause) {}

Reconciler::~Reconciler() {
  stop();
}

void Reconciler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Reconciler::wake() {
  {
    const std::lock_guard lock(mutex_);
    admission_due_ = true;
  }
  wake_.notify_all();
}

void Reconciler::run_changed(const std::string& run_id) {
  if (job_of_run(run_id).empty()) return;
  {
    const std::lock_guard lock(mutex_);
    changed_.insert(run_id);
  }
  wake_.notify_all();
}

Result<void> Reconciler::start() {
  struct Found {
    std::vector<Job> jobs;
    std::vector<store::Run> runs;
  };
  const Found found = TRY(platform_.db.read([](db::Transaction& tx) -> Result<Found> {
    return Found{store::active_jobs(tx), store::active_runs(tx)};
  }));
  for (const auto& job : found.jobs) {
    const auto run = std::find_if(found.runs.begin(), found.runs.end(),
                                  [&](const auto& each) { return each.run_id == job.run_id; });
    run == found.runs.end() ? board_.update(job) : board_.update(job, run->engine, run->granted);
    if (job.state == JobState::running || job.state == JobState::stopping) monitor_.watch(job.id);
  }
  {
    const std::lock_guard lock(mutex_);
    admission_due_ = true;
    for (const auto& run : found.runs) changed_.insert(run.run_id);
    // Runs that the engines know and the database does not wait for: ended, or never written down.
    for (const auto& entry : platform_.engines.all())
      if (auto ids = entry.engine->list(); ids.ok())
        for (const auto& id : *ids)
          if (!job_of_run(id).empty()) changed_.insert(id);
  }
  if (!found.jobs.empty()) log::info("jobs: {} under way", found.jobs.size());
  thread_ = std::thread([this] { run(); });
  return {};
}

/// In pieces: a job is written while others are read.
void Reconciler::load_queue() {
  constexpr std::int64_t kPiece = 1000;
  std::size_t count = 0;
  for (std::string last;;) {
    const auto piece = platform_.db.read([&](db::Transaction& tx) -> Result<std::vector<Job>> {
      return store::queued_jobs(tx, last, kPiece);
    });
    if (!piece.ok()) {
      log::error("the queue cannot be read: {}", piece.error().describe(Language::en));
      return;
    }
    for (const auto& job : *piece) board_.update(job);
    count += piece->size();
    if (static_cast<std::int64_t>(piece->size()) < kPiece) break;
    last = piece->back().id;
    const std::lock_guard lock(mutex_);
    if (stop_) return;
  }
  queue_loaded_ = true;
  if (count > 0) log::info("jobs: {} queued", count);
}

void Reconciler::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const bool hinted =
        wake_.wait_for(lock, tick_, [&] { return stop_ || admission_due_ || !changed_.empty(); });
    if (stop_) return;
    lock.unlock();
    if (!hinted) {
      observe_active();
      const std::lock_guard again(mutex_);
      admission_due_ = true;
    }
    const auto began = std::chrono::steady_clock::now();
    step();
    const auto took = std::chrono::steady_clock::now() - began;
    lock.lock();
    // A long queue must not take a core: hints that come meanwhile are one.
    if (took > std::chrono::milliseconds(5))
      wake_.wait_for(lock, std::min<std::chrono::steady_clock::duration>(took * 9, kLongestRest),
                     [&] { return stop_; });
  }
}

void Reconciler::step() {
  std::set<std::string> changed;
  bool admission_due = false;
  {
    const std::lock_guard lock(mutex_);
    changed.swap(changed_);
    std::swap(admission_due, admission_due_);
  }
  for (const auto& run_id : changed) observe(run_id);
  if (!queue_loaded_) load_queue();
  if (admission_due && queue_loaded_) admit();
}

// ---- who starts ------------------------------------------------------------------------------------------

class Reconciler::Inputs {
 public:
  explicit Inputs(const Platform& platform) : platform_(platform), now_(platform.clock.now()) {}

  /// Null: nothing is in its way.
  std::shared_ptr<const Cause> blocking(const OpenJob& job) {
    if (job.not_before && now_ < *job.not_before) return resting_;
    if (!job.model_version_id.empty())
      if (auto cause = once(job.model_version_id, [&] { return of_model(job.model_version_id); }))
        return cause;
    if (job.image_id.empty()) return nullptr;
    return once(job.candidate.demand->user_id + ' ' + job.image_id,
                [&] { return of_image(job.candidate.demand->user_id, job.image_id); });
  }

 private:
  using Shared = std::shared_ptr<const Cause>;

  template <class Ask>
  Shared once(const std::string& key, Ask ask) {
    const auto [at, fresh] = known_.try_emplace(key);
    if (fresh)
      if (Cause cause = ask(); cause.reason != Reason::none)
        at->second = std::make_shared<const Cause>(std::move(cause));
    return at->second;
  }

  Cause of_model(const std::string& id) const {
    const auto version = platform_.models.version(id);
    if (!version.ok() || version->state == models::State::failed)
      return {.reason = Reason::input_unavailable,
              .detail = {"模型版本已不可用", "the model version is not available"}};
    if (version->state == models::State::importing) return {.reason = Reason::waiting_for_model};
    return {};
  }

  Cause of_image(const std::string& user_id, const std::string& id) const {
    const auto image = platform_.images.resolve(user_id, true, id, "image");
    if (!image.ok()) return {.reason = Reason::input_unavailable, .detail = image.error().message};
    if (!image->ready) return {.reason = Reason::waiting_for_image};
    return {};
  }

  const Platform& platform_;
  const Time now_;
  const Shared resting_ = std::make_shared<const Cause>(Cause{.reason = Reason::waiting_to_restart});
  std::map<std::string, Shared> known_;
};

admission::Snapshot Reconciler::snapshot() {
  admission::Snapshot out;
  out.now = platform_.clock.now();
  const quotas::Compute machine = platform_.quotas.machine();
  std::map<std::string, engines::GpuPool> pools;  // devices belong to an engine, whichever group uses them
  for (const auto& entry : platform_.engines.all())
    pools.emplace(std::string(entry.engine->name()), engines::GpuPool(entry.gpus));
  const auto hold = [&](const std::string& engine, const engines::GpuGrant& grant) {
    if (auto pool = pools.find(engine); pool != pools.end()) pool->second.hold(grant);
  };
  for (const auto& job : board_.active()) {
    const admission::Demand& demand = *job->candidate.demand;
    admission::Holding holding{
        .user_id = demand.user_id, .group_id = demand.group_id, .held = demand.total, .since = job->since};
    if (job->candidate.time_limit.count() > 0) holding.ends_by = job->since + job->candidate.time_limit;
    out.holdings.push_back(std::move(holding));
    for (const auto& rank : job->granted.gpus)
      for (const auto& grant : rank) hold(job->engine, grant);
  }
  for (auto* source : sources_) {
    for (auto& held : source->holdings()) {
      for (const auto& grant : held.gpus) hold(held.engine, grant);
      out.holdings.push_back(std::move(held.holding));
    }
  }
  if (auto groups = platform_.quotas.groups(); groups.ok()) {
    for (const auto& group : *groups) {
      admission::Group& seen = out.groups[group.id];
      const auto* entry = platform_.engines.find(group.engine);
      seen.engine = group.engine;
      const auto can = entry ? entry->engine->capabilities() : engines::Capabilities{.usable = false};
      if (!can.usable) {
        seen.usable = false;
        seen.trouble = {fmt::format("运行引擎 {} 不可用", group.engine),
                        fmt::format("the engine {} is not available", group.engine)};
        if (!can.shortcomings.empty()) seen.trouble = can.shortcomings.front();
      }
      seen.capacity = capacity_of(group, machine, entry ? entry->gpus : std::vector<engines::GpuDevice>{});
      if (entry) seen.gpus = pools[group.engine];
    }
  }
  return out;
}

void Reconciler::admit() {
  std::vector<OpenJobPtr> jobs = board_.queued();
  std::vector<std::shared_ptr<const Cause>> causes(jobs.size());
  if (jobs.empty()) return board_.set_waits({}, {});
  std::unique_lock granting(platform_.engines.granting());
  admission::Snapshot picture = snapshot();
  std::vector<std::size_t> place_in_jobs;  // of each candidate
  Inputs inputs(platform_);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const OpenJobPtr& job = jobs[i];
    if (job->finishing) continue;
    if ((causes[i] = inputs.blocking(*job))) continue;
    picture.queue.emplace_back(job, &job->candidate);
    place_in_jobs.push_back(i);
    const std::string& user = job->candidate.demand->user_id;
    if (picture.quotas.contains(user)) continue;
    if (auto quota = platform_.quotas.quota_of(user); quota.ok())
      picture.quotas.emplace(user, std::move(quota).value());
  }
  std::map<std::string, std::string> gpus_taken_by;  // engine → the group that was given devices now
  std::vector<Start> starts;
  for (auto& verdict : admission::admit(picture)) {
    const admission::Candidate& job = *picture.queue[verdict.place];
    if (!verdict.start) {
      causes[place_in_jobs[verdict.place]] = std::move(verdict.cause);
      continue;
    }
    const std::string& engine = picture.groups.at(job.demand->group_id).engine;
    const bool wants_gpus =
        std::any_of(verdict.gpus.begin(), verdict.gpus.end(), [](const auto& rank) { return !rank.empty(); });
    if (wants_gpus) {
      // Two groups of one engine share its devices, and each was shown them whole.
      auto& group = gpus_taken_by[engine];
      if (group.empty()) group = job.demand->group_id;
      if (group != job.demand->group_id) {
        wake();
        continue;
      }
    }
    const std::size_t ranks = verdict.gpus.size();
    starts.push_back({job.id, engine, {std::move(verdict.gpus), free_ports(ranks + 1)}});
  }
  begin(std::move(starts), std::move(granting));
  for (std::size_t i = 0; i < jobs.size(); ++i)
    if (causes[i] && is_refusal(causes[i]->reason))
      finish(*jobs[i], {.cause = *causes[i], .at = platform_.clock.now()}, -1, false);
  board_.set_waits(std::move(jobs), std::move(causes));
}

void Reconciler::begin(std::vector<Start> starts, std::unique_lock<std::mutex> granting) {
  if (starts.empty()) return;
  std::vector<std::pair<Job, store::Run>> begun;
  std::vector<std::string> passed;
  const auto written = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    begun.clear();
    passed.clear();
    for (const auto& start : starts) {
      auto job = lifecycle_.begin(tx, start.job_id, start.engine, start.granted);
      if (!job) {
        passed.push_back(start.job_id);
        continue;
      }
      store::Run run{.run_id = job->run_id,
                     .job_id = job->id,
                     .attempt = job->attempt,
                     .engine = start.engine,
                     .granted = start.granted};
      begun.emplace_back(std::move(*job), std::move(run));
    }
    return {};
  });
  if (!written.ok()) {
    log::error("jobs cannot be started: {}", written.error().describe(Language::en));
    return;
  }
  for (const auto& [job, run] : begun) board_.update(job, run.engine, run.granted);
  granting.unlock();
  for (const auto& id : passed) resync(id);
  for (const auto& [job, run] : begun) launch(job, run);
}

void Reconciler::launch(const Job& job, const store::Run& run) {
  const auto open = board_.find(job.id);
  if (!open || open->run_id != run.run_id) return;
  if (open->state == JobState::stopping) return observe(run.run_id);
  engines::Engine* engine = engine_of(*open);
  const auto fail = [&](Reason reason, const Text& detail) {
    finish(*open, {.cause = {.reason = reason, .detail = detail}, .at = platform_.clock.now()}, -1, false);
  };
  if (!engine) return fail(Reason::engine_error, {"运行引擎未启用", "the engine is not set up"});
  const auto plan = launcher_.prepare(job, run);
  if (!plan.ok()) {
    const Error& error = plan.error();
    const Text text{error.describe(Language::zh), error.describe(Language::en)};
    return fail(error.code == Code::not_found ? Reason::input_unavailable : Reason::engine_error, text);
  }
  const auto started = engine->start(*plan);
  if (started.ok()) return;
  const Error& error = started.error();
  if (error.code == Code::unavailable) {
    log::warning("job {}: the engine does not answer: {}", job.id, error.describe(Language::en));
    return back_off(*open);
  }
  fail(Reason::engine_error, {error.describe(Language::zh), error.describe(Language::en)});
}

// ---- what runs -------------------------------------------------------------------------------------------

engines::Engine* Reconciler::engine_of(const OpenJob& job) {
  const auto* entry = platform_.engines.find(job.engine);
  return entry ? entry->engine : nullptr;
}

EngineView Reconciler::view(const OpenJob& job) {
  engines::Engine* engine = engine_of(job);
  if (!engine) return {.kind = EngineView::Kind::unavailable};
  auto status = engine->inspect(job.run_id);
  if (status.ok()) return {EngineView::Kind::known, std::move(status).value()};
  return {.kind = status.error().code == Code::not_found ? EngineView::Kind::unknown
                                                         : EngineView::Kind::unavailable};
}

void Reconciler::observe(const std::string& run_id) {
  const auto job = board_.find_run(run_id);
  if (!job || !is_active(job->state)) return forget_stray(run_id);
  if (job->finishing) return;
  const EngineView seen = view(*job);
  act(*job, seen, decide(job->state, seen, job->attempt - 1));
}

void Reconciler::observe_active() {
  const Time now = platform_.clock.now();
  for (const auto& job : board_.active())
    if (!job->not_before || now >= *job->not_before) observe(job->run_id);
}

void Reconciler::act(const OpenJob& job, const EngineView& seen, const Decision& decision) {
  using Step = Decision::Step;
  switch (decision.step) {
    case Step::nothing:
      return;
    case Step::start: {
      if (job.not_before && platform_.clock.now() < *job.not_before) return;
      struct Found {
        std::optional<Job> job;
        std::optional<store::Run> run;
      };
      auto found = platform_.db.read([&](db::Transaction& tx) -> Result<Found> {
        return Found{store::find_job(tx, job.candidate.id), store::find_run(tx, job.run_id)};
      });
      if (found.ok() && found->job && found->run && found->job->run_id == job.run_id)
        return launch(*found->job, *found->run);
      return resync(job.candidate.id);
    }
    case Step::running:
      return note_running(job, seen);
    case Step::stop:
      if (auto stopped = engine_of(job)->stop(job.run_id); !stopped.ok())
        log::warning("run {} cannot be stopped: {}", job.run_id, stopped.error().describe(Language::en));
      return;
    case Step::finish:
    case Step::restart:
      break;
  }
  Ended ended{.cause = decision.cause, .at = platform_.clock.now()};
  int verdict_rank = -1;
  if (seen.status) {
    ended.started_at = seen.status->started_at;
    if (seen.status->ended_at) ended.at = *seen.status->ended_at;
    for (const auto& rank : seen.status->ranks) {
      if (!rank.end) continue;
      ended.cpu_seconds += rank.end->cpu_seconds;
      ended.memory_peak_bytes += rank.end->memory_peak_bytes;
    }
    verdict_rank = static_cast<int>(seen.status->verdict_rank);
  }
  finish(job, std::move(ended), verdict_rank, decision.step == Step::restart);
}

void Reconciler::note_running(const OpenJob& job, const EngineView& seen) {
  const Time started = seen.status->started_at.value_or(platform_.clock.now());
  std::optional<Job> changed;
  const auto written = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    changed = lifecycle_.running(tx, job.candidate.id, started);
    return {};
  });
  if (!written.ok())
    return log::error("job {}: {}", job.candidate.id, written.error().describe(Language::en));
  if (!changed) return resync(job.candidate.id);
  board_.update(*changed);
  monitor_.watch(job.candidate.id);
}

void Reconciler::finish(const OpenJob& job, Ended ended, int verdict_rank, bool restart) {
  const std::string job_id = job.candidate.id, run_id = job.run_id;
  board_.note(job_id, [](OpenJob& open) { open.finishing = true; });
  const bool succeeded = ended.cause.reason == Reason::completed;
  if (run_id.empty()) return write_end(job_id, run_id, std::move(ended), verdict_rank, restart);
  // What the run has said of itself is written down before its end is: who sees the end sees all of it.
  monitor_.finish(job_id, succeeded, [this, job_id, run_id, ended = std::move(ended), verdict_rank, restart] {
    write_end(job_id, run_id, ended, verdict_rank, restart);
  });
}

void Reconciler::write_end(const std::string& job_id, const std::string& run_id, Ended ended,
                           int verdict_rank, bool restart) {
  const auto open = board_.find(job_id);
  if (ended.cause.reason != Reason::completed && ended.cause.reason != Reason::stopped_by_user && open)
    ended.log = log_tail(launcher_.log_path(job_id, open->attempt, std::max(0, verdict_rank)));
  std::optional<Job> changed;
  const auto written = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    changed = restart ? lifecycle_.restart(tx, job_id, ended) : lifecycle_.finish(tx, job_id, ended);
    return {};
  });
  if (!written.ok()) {
    log::error("the end of job {} cannot be written down: {}", job_id,
               written.error().describe(Language::en));
    return board_.note(job_id, [](OpenJob& job) { job.finishing = false; });
  }
  if (changed) {
    board_.update(*changed);
    if (restart)
      board_.note(job_id, [&](OpenJob& job) {
        job.not_before = platform_.clock.now() + first_pause_ * (1 << std::min(changed->attempt, 6));
      });
    platform_.files.recount(changed->user_id);
  } else {
    resync(job_id);
  }
  if (!run_id.empty()) run_changed(run_id);  // the engine may forget it
  wake();
}

void Reconciler::forget_stray(const std::string& run_id) {
  for (const auto& entry : platform_.engines.all()) {
    const auto status = entry.engine->inspect(run_id);
    if (!status.ok()) continue;
    if (status->state == engines::RankState::ended) {
      if (auto removed = entry.engine->remove(run_id); !removed.ok())
        log::warning("run {} cannot be removed: {}", run_id, removed.error().describe(Language::en));
    } else {
      log::warning("run {} belongs to no job: it is stopped", run_id);
      if (auto stopped = entry.engine->stop(run_id, Duration{0}); !stopped.ok())
        log::warning("run {} cannot be stopped: {}", run_id, stopped.error().describe(Language::en));
    }
  }
}

void Reconciler::resync(const std::string& job_id) {
  struct Found {
    std::optional<Job> job;
    std::optional<store::Run> run;
  };
  const auto found = platform_.db.read([&](db::Transaction& tx) -> Result<Found> {
    auto job = store::find_job(tx, job_id);
    auto run = job ? store::find_run(tx, job->run_id) : std::nullopt;
    return Found{std::move(job), std::move(run)};
  });
  if (!found.ok()) return;
  if (!found->job) return board_.remove(job_id);
  found->run ? board_.update(*found->job, found->run->engine, found->run->granted)
             : board_.update(*found->job);
}

void Reconciler::back_off(const OpenJob& job) {
  board_.note(job.candidate.id, [&](OpenJob& open) {
    const auto pause = std::min<Duration>(first_pause_ * (1 << std::min(open.failures, 6)), kLongestPause);
    ++open.failures;
    open.not_before = platform_.clock.now() + pause;
  });
}

}  // namespace lathe::jobs
