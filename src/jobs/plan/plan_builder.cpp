#include "jobs/plan/plan_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/json.h"
#include "jobs/places.h"

namespace lathe::jobs {

namespace {

constexpr std::int64_t kMaxProcesses = 16384;
constexpr std::string_view kHostfile = "/workspace/hostfile";

/// All ranks as one: what an MPI launcher needs on one machine.
ResourceRequest sum_of(const std::vector<RankRequest>& ranks) {
  ResourceRequest out{.cpu = 0, .memory_gb = 0};
  for (const auto& rank : ranks) {
    out.cpu += rank.need.cpu;
    out.memory_gb += rank.need.memory_gb;
    out.gpu.count += rank.need.gpu.count;
  }
  return out;
}

engines::Resources resources_of(const ResourceRequest& need, std::vector<engines::GpuGrant> gpus) {
  return {.cpus = static_cast<double>(need.cpu),
          .memory_bytes = std::int64_t{need.memory_gb} << 30,
          .pids = kMaxProcesses,
          .gpus = std::move(gpus)};
}

}  // namespace

PlanBuilder::PlanBuilder(const Job& job, const LaunchSite& site) : job_(job), site_(site) {
  plan_.run_id = site.run_id;
  plan_.image = site.image;
  plan_.work_dir = std::string(start_dir(job.spec));
  plan_.time_limit = std::chrono::seconds(job.spec.time_limit_s);
  plan_.stop_grace = site.stop_grace;
  plan_.log_dir = site.log_dir;
  plan_.max_log_bytes = site.max_log_bytes;
  plan_.network = site.network;
  plan_.read_only_root = site.read_only_root;
  plan_.uid = site.uid;
  plan_.gid = site.gid;
  set("LATHE_JOB_ID", job.id);
  set("LATHE_JOB_NAME", job.name);
  set("LATHE_JOB_KIND", std::string(name(job.spec.kind)));
  set("LATHE_ATTEMPT", std::to_string(site.attempt));
}

void PlanBuilder::set(std::string name, std::string value) {
  plan_.env.push_back({std::move(name), std::move(value)});
}

void PlanBuilder::mount(const std::optional<HostPlace>& place, std::string_view target, bool writable) {
  if (place) plan_.mounts.push_back({place->root, place->path, std::string(target), writable});
}

void PlanBuilder::add_inputs() {
  mount(site_.work, kCodeDir, true);  // scripts write caches and logs beside themselves
  mount(site_.model, kModelDir, false);
  mount(site_.input, kInputDir, false);
  mount(site_.algorithm, kAlgorithmDir, false);
}

void PlanBuilder::add_output() {
  mount(site_.output, kOutputDir, true);
}

void PlanBuilder::add_checkpoints() {
  mount(site_.checkpoint, kCheckpointDir, true);
  if (site_.attempt <= 1) return;
  set("RESUME", "1");
  if (!site_.resume_from.empty())
    set("RESUME_FROM_CHECKPOINT", fmt::format("{}/{}", kCheckpointDir, site_.resume_from));
}

void PlanBuilder::add_parameters() {
  boost::json::object parameters;
  for (const auto* list : {&job_.spec.common_parameters, &job_.spec.tuning_parameters})
    for (const auto& each : *list) parameters[each.name] = each.value;
  set("HYPER_PARAMETERS", json::print(parameters));
  auto known = placeholders(job_.spec);
  std::reverse(known.begin(), known.end());  // the later one wins: parameters over places
  for (auto& each : known)
    if (is_exported(each.name)) set(std::move(each.name), std::move(each.value));
}

void PlanBuilder::add_user_environment() {
  for (const auto& each : job_.spec.environment) set(each.name, each.value);
}

Result<void> PlanBuilder::add_command() {
  if (!job_.spec.argv.empty()) {
    plan_.argv = job_.spec.argv;
    return {};
  }
  const PreparedCommand command = TRY(prepare(job_.spec, "command"));
  plan_.argv = {"/bin/sh", "-c", command.line, "sh"};
  for (const auto* list : {&job_.spec.common_parameters, &job_.spec.tuning_parameters})
    for (const auto& each : *list) {
      // What the command places itself is not said twice.
      if (std::find(command.used.begin(), command.used.end(), each.name) != command.used.end()) continue;
      plan_.argv.push_back("--" + each.name);
      plan_.argv.push_back(each.value);
    }
  return {};
}

void PlanBuilder::add_ranks() {
  const auto ranks = expand_ranks(job_.spec.groups);
  if (is_mpi(job_.spec)) {
    mount(site_.hostfile, kHostfile, false);
    set("MPI_HOSTFILE", std::string(kHostfile));
    set("OMPI_MCA_orte_default_hostfile", std::string(kHostfile));
    std::vector<engines::GpuGrant> gpus;
    for (const auto& each : site_.gpus) gpus.insert(gpus.end(), each.begin(), each.end());
    const RankRequest launcher{.need = sum_of(ranks)};
    engines::RankPlan plan{.resources = resources_of(launcher.need, std::move(gpus))};
    for (auto& each : rank_environment(job_.spec.framework, {&launcher, 1}, 0, site_.rendezvous))
      plan.env.push_back({std::move(each.name), std::move(each.value)});
    plan_.ranks.push_back(std::move(plan));
    return;
  }
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    engines::RankPlan plan;
    plan.resources =
        resources_of(ranks[i].need, i < site_.gpus.size() ? site_.gpus[i] : decltype(plan.resources.gpus){});
    for (auto& each : rank_environment(job_.spec.framework, ranks, i, site_.rendezvous)) {
      const bool users_own = std::any_of(job_.spec.environment.begin(), job_.spec.environment.end(),
                                         [&](const auto& mine) { return mine.name == each.name; });
      if (!users_own) plan.env.push_back({std::move(each.name), std::move(each.value)});
    }
    plan_.ranks.push_back(std::move(plan));
  }
}

Result<engines::LaunchPlan> PlanBuilder::build() && {
  TRY(add_command());
  add_ranks();
  add_user_environment();
  return std::move(plan_);
}

bool is_mpi(const JobSpec& spec) {
  return spec.framework == "MPI";
}

std::string mpi_hostfile(const JobSpec& spec) {
  int slots = 0;
  for (const auto& group : spec.groups) slots += group.count * std::max(1, group.each.gpu.count);
  return fmt::format("localhost slots={}\n", slots);
}

Result<engines::LaunchPlan> make_plan(const Job& job, const LaunchSite& site) {
  switch (job.spec.kind) {
    case JobKind::fine_tune:
      return plan_fine_tune(job, site);
    case JobKind::pretrain:
      return plan_pretrain(job, site);
    case JobKind::modelling:
      return plan_modelling(job, site);
    case JobKind::evaluation:
      break;
  }
  return plan_evaluation(job, site);
}

}  // namespace lathe::jobs
