#include "jobs/service.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "jobs/capacity.h"

namespace lathe::jobs {

namespace {

Error no_job(std::string_view id, std::string_view field) {
  Error error = not_found({"任务", "job"}, id);
  if (!field.empty()) error.violations.push_back({std::string(field), {"不存在", "does not exist"}});
  return error;
}

/// The place where the user asked for nothing, as they would have written it.
std::string shown_path(const JobDirectory& directory) {
  return directory.source == JobDirectory::Source::user_root ? "/" + directory.path : std::string();
}

}  // namespace

Result<std::unique_ptr<Jobs>> Jobs::open(const Platform& platform, Options options) {
  auto service = std::make_unique<Service>(platform, std::move(options));
  TRY(service->construct());
  return std::unique_ptr<Jobs>(std::move(service));
}

Service::Service(const Platform& platform, Options options)
    : platform_(platform),
      options_(std::move(options)),
      lifecycle_(platform_.ids, platform_.clock),
      launcher_(platform_, options_),
      monitor_(platform_, launcher_),
      reconciler_(platform_, launcher_, board_, lifecycle_, monitor_, options_.tick, options_.first_pause),
      hook_(std::make_shared<Hook>()) {
  hook_->reconciler = &reconciler_;
}

Service::~Service() {
  {
    const std::lock_guard lock(hook_->mutex);
    hook_->reconciler = nullptr;
  }
  monitor_.stop();
}

Result<void> Service::construct() {
  TRY(Directory::create(options_.directory));
  platform_.quotas.add_source(*this);
  platform_.models.set_training_outputs(*this);
  add_guards();
  // The others outlive this one: what they call must know when it is gone.
  const auto wake = [hook = hook_] {
    const std::lock_guard lock(hook->mutex);
    if (hook->reconciler) hook->reconciler->wake();
  };
  platform_.models.on_change([wake](std::string_view) { wake(); });
  platform_.images.on_change([wake](std::string_view) { wake(); });
  return {};
}

void Service::add_guards() {
  const auto refuse = [](const std::string& job_id) {
    return Error{Code::failed_precondition, {"正在被任务使用：" + job_id, "is in use by job " + job_id}};
  };
  platform_.models.guard_deletion([refuse](db::Transaction& tx, std::string_view id) -> Result<void> {
    if (auto job = store::open_user_of_model(tx, id)) return refuse(*job);
    return {};
  });
  platform_.datasets.guard_deletion(
      [refuse](db::Transaction& tx, std::string_view, std::string_view version) -> Result<void> {
        if (auto job = store::open_user_of_dataset(tx, version)) return refuse(*job);
        return {};
      });
  platform_.images.guard_deletion(
      [refuse](db::Transaction& tx, std::string_view id, std::string_view) -> Result<void> {
        if (auto job = store::open_user_of_image(tx, id)) return refuse(*job);
        return {};
      });
  platform_.accounts.guard_deletion([](db::Transaction& tx, std::string_view user) -> Result<void> {
    const auto open = store::open_jobs_of_user(tx, user);
    if (open == 0) return {};
    return Error{Code::failed_precondition,
                 {fmt::format("该用户还有 {} 个未结束的任务", open),
                  fmt::format("has {} jobs that are not over", open)}};
  });
  platform_.quotas.guard_deletion([](db::Transaction& tx, std::string_view group) -> Result<void> {
    const auto open = store::open_jobs_of_group(tx, group);
    if (open == 0) return {};
    return Error{Code::failed_precondition,
                 {fmt::format("资源组还有 {} 个未结束的任务", open),
                  fmt::format("has {} jobs that are not over", open)}};
  });
}

Result<void> Service::start() {
  sweep_trash();
  monitor_.start();
  return reconciler_.start();
}

Service::Figures Service::figures() const {
  const auto counts = board_.counts();
  return {counts.queued, counts.active};
}

// ---- what is held ----------------------------------------------------------------------------------------

std::vector<HoldingSource::Held> Service::held_by_jobs() const {
  std::vector<HoldingSource::Held> out;
  for (const auto& job : board_.active()) {
    HoldingSource::Held held;
    const admission::Demand& demand = *job->candidate.demand;
    held.holding = {
        .user_id = demand.user_id, .group_id = demand.group_id, .held = demand.total, .since = job->since};
    held.engine = job->engine;
    for (const auto& rank : job->granted.gpus) held.gpus.insert(held.gpus.end(), rank.begin(), rank.end());
    out.push_back(std::move(held));
  }
  return out;
}

quotas::Compute Service::usage_of(db::Transaction& tx, std::string_view user_id) {
  std::int64_t jobs = 0;
  quotas::Compute out = compute_of(store::held_by(tx, user_id, jobs));
  out.jobs = jobs;
  return out;
}

quotas::Compute Service::total_usage(db::Transaction& tx) {
  return usage_of(tx, {});
}

// ---- creation --------------------------------------------------------------------------------------------

Result<bool> Service::done_before(http::Call& call, const std::string& id) {
  if (!call.request.headers.has("Idempotency-Key")) return false;
  return platform_.db.read([&](db::Transaction& tx) -> Result<bool> { return store::exists(tx, id); });
}

Result<std::string> Service::insert(http::Call& call, NewJob made, std::string request) {
  std::string spec = store::stored_spec(made.job.spec);
  const auto written = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    const auto& version = made.job.spec.model_version_id;
    if (!version.empty() && !platform_.models.version(tx, version))
      return not_found({"模型版本", "model version"}, version);
    store::insert_job(tx, made.job, std::move(spec), std::move(request));
    platform_.audit.record(tx, call, "job.create", "job", made.job.id, made.job.name);
    return {};
  });
  if (!written.ok()) return written.error();
  std::string id = made.job.id;
  board_.update(made.job);
  reconciler_.wake();
  return id;
}

Result<std::string> Service::create(http::Call& call, CreateTask task, JobKind kind) {
  const std::string id = call.new_id();
  if (TRY(done_before(call, id))) return id;
  Problems problems;
  Draft draft = draft_of(task, kind, problems);
  NewJob made = TRY(build_job(platform_, call.caller, id, std::move(draft), std::move(problems)));
  // What was left open is given back as it was settled.
  const JobSpec& spec = made.job.spec;
  task.name = made.job.name;
  task.userId = made.job.user_id;
  task.userName = made.job.user_name;
  task.zoneId = made.group.id;
  task.zoneName = made.group.name;
  task.resourceGroupKey = made.group.key;
  if (task.image.empty()) task.image = spec.image;
  if (task.fineTuneStrategy.empty()) task.fineTuneStrategy = spec.strategy;
  if (task.outputDir.empty()) task.outputDir = shown_path(spec.output);
  if (task.checkPointDir.empty()) task.checkPointDir = shown_path(spec.checkpoint);
  return insert(call, std::move(made), json::write(task));
}

Result<std::string> Service::create(http::Call& call, CreateEvaluation evaluation) {
  const std::string id = call.new_id();
  if (TRY(done_before(call, id))) return id;
  Problems problems;
  Draft draft = draft_of(evaluation, problems);
  NewJob made = TRY(build_job(platform_, call.caller, id, std::move(draft), std::move(problems)));
  evaluation.userId = made.job.user_id;
  evaluation.resourceGroupId = made.group.id;
  evaluation.resourceGroupName = made.group.name;
  evaluation.resourceGroupKey = made.group.key;
  return insert(call, std::move(made), json::write(evaluation));
}

// ---- one job ---------------------------------------------------------------------------------------------

void Service::explain_waiting(Job& job) const {
  if (job.state != JobState::queued) return;
  if (const auto cause = board_.wait_of(job.id)) job.cause = *cause;
}

Result<Job> Service::visible_row(const http::Identity& caller, std::string_view id, std::string_view field) {
  const std::string plain = undashed(id);
  auto job = TRY(platform_.db.read(
      [&](db::Transaction& tx) -> Result<std::optional<Job>> { return store::find_row(tx, plain); }));
  if (!job || (!caller.admin && job->user_id != caller.user_id)) return no_job(id, field);
  explain_waiting(*job);
  return std::move(*job);
}

Result<Job> Service::visible_job(const http::Identity& caller, std::string_view id, std::string_view field) {
  Job job = TRY(visible_row(caller, id, field));
  auto spec = TRY(platform_.db.read(
      [&](db::Transaction& tx) -> Result<std::optional<JobSpec>> { return store::find_spec(tx, job.id); }));
  if (spec) job.spec = std::move(*spec);
  return job;
}

Result<std::pair<Job, std::string>> Service::visible_request(const http::Identity& caller,
                                                             std::string_view id, std::string_view field) {
  Job job = TRY(visible_row(caller, id, field));
  std::string request = TRY(platform_.db.read(
      [&](db::Transaction& tx) -> Result<std::string> { return store::find_request(tx, job.id); }));
  return std::pair(std::move(job), std::move(request));
}

Result<Job> Service::stop(http::Call& call, std::string_view id) {
  const Job before = TRY(visible_row(call.caller, id));
  Job job = TRY(platform_.db.write([&](db::Transaction& tx) -> Result<Job> {
    Job stopped = TRY(lifecycle_.stop(tx, before.id));
    platform_.audit.record(tx, call, "job.stop", "job", before.id, before.name);
    return stopped;
  }));
  board_.update(job);
  // A stopped one that waited gives its turn to the next.
  job.run_id.empty() ? reconciler_.wake() : reconciler_.run_changed(job.run_id);
  return job;
}

Result<Job> Service::retry(http::Call& call, std::string_view id) {
  const Job before = TRY(visible_row(call.caller, id));
  Job job = TRY(platform_.db.write([&](db::Transaction& tx) -> Result<Job> {
    Job again = TRY(lifecycle_.retry(tx, before.id));
    platform_.audit.record(tx, call, "job.retry", "job", before.id, before.name);
    return again;
  }));
  board_.update(job);
  reconciler_.wake();
  return job;
}

Result<void> Service::remove(http::Call& call, std::string_view id) {
  const Job before = TRY(visible_row(call.caller, id));
  TRY(platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    const auto job = store::find_row(tx, before.id);
    if (!job) return no_job(id, {});
    if (!is_ended(job->state))
      return Error{Code::failed_precondition,
                   {"任务尚未结束，请先停止", "the job is not over: stop it first"}};
    store::delete_job(tx, before.id);
    platform_.audit.record(tx, call, "job.delete", "job", before.id, before.name);
    return {};
  }));
  board_.remove(before.id);
  remove_files(before.id);
  return {};
}

void Service::remove_files(const std::string& job_id) {
  auto root = Directory::open(options_.directory);
  auto path = Path::parse(job_id, "id");
  if (!root.ok() || !path.ok()) return;
  if (auto removed = root->remove_tree(*path); !removed.ok()) {
    log::warning("the logs of job {} cannot be removed: {}", job_id, removed.error().describe(Language::en));
    return;
  }
  const auto forgotten = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    store::forget_trash(tx, job_id);
    return {};
  });
  if (!forgotten.ok()) log::warning("job {}: {}", job_id, forgotten.error().describe(Language::en));
}

void Service::sweep_trash() {
  const auto left = platform_.db.read(
      [](db::Transaction& tx) -> Result<std::vector<std::string>> { return store::trash(tx); });
  if (!left.ok()) return;
  for (const auto& id : *left) remove_files(id);
}

// ---- lists -----------------------------------------------------------------------------------------------

Result<store::Listing> Service::list(const http::Identity& caller, const TaskListRequest& request,
                                     std::vector<JobKind> kinds) {
  store::Filter filter{.kinds = std::move(kinds), .user_id = {}, .status = {}, .name_part = request.taskName};
  if (!request.userName.empty()) {
    filter.user_id =
        TRY(platform_.accounts.acting_for(caller, {.user_id = request.userId, .user_name = request.userName}))
            .id;
  } else {
    filter.user_id = TRY(platform_.accounts.listing_for(caller, request.userId, "userId"));
  }
  if (!request.status.empty()) {
    const auto states = states_of(request.status);
    if (states.empty())
      return invalid_field("status", {"只能是：Pending, Running, Succeeded, Failed, Stopped",
                                      "must be one of: Pending, Running, Succeeded, Failed, Stopped"});
    filter.status = std::string(documented_status(states.front()));
  }
  auto listing = TRY(platform_.db.read([&](db::Transaction& tx) -> Result<store::Listing> {
    return store::page(tx, filter, request.page.offset(), request.page.size());
  }));
  for (auto& job : listing.jobs) explain_waiting(job);
  return listing;
}

Result<std::vector<Job>> Service::older(const http::Identity& caller, const OwnFilter& own,
                                        const http::SliceQuery& slice) {
  store::Filter filter{.kinds = {}, .user_id = {}, .status = {}, .name_part = own.name};
  filter.user_id = TRY(platform_.accounts.listing_for(caller, own.user_id, "userId"));
  if (own.kind.empty()) {
    filter.kinds.assign(std::begin(kJobKinds), std::end(kJobKinds));
  } else if (const auto kind = job_kind(own.kind)) {
    filter.kinds = {*kind};
  }
  if (const auto states = states_of(own.status); !states.empty())
    filter.status = std::string(documented_status(states.front()));
  auto jobs = TRY(platform_.db.read([&](db::Transaction& tx) -> Result<std::vector<Job>> {
    return store::older(tx, filter, undashed(slice.cursor), slice.limit());
  }));
  for (auto& job : jobs) explain_waiting(job);
  return jobs;
}

}  // namespace lathe::jobs
