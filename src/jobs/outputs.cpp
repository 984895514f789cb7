#include "base/json.h"
#include "db/row.h"
#include "jobs/service.h"

namespace lathe::jobs {

namespace {

struct Found {
  std::optional<Job> job;
  std::optional<store::Checkpoint> checkpoint;
  std::vector<store::Metric> metrics;
};

/// A checkpoint by its own id; of a job its final model, else its newest checkpoint.
Found look_up(db::Transaction& tx, const std::string& id) {
  Found out;
  out.checkpoint = store::find_checkpoint(tx, id);
  out.job = store::find_job(tx, out.checkpoint ? out.checkpoint->job_id : id);
  if (!out.job) return out;
  out.metrics = store::latest_metrics(tx, out.job->id);
  if (out.checkpoint) return out;
  for (auto& each : store::checkpoints_of(tx, out.job->id)) {
    const bool better = each.kind == "model" && (!out.checkpoint || out.checkpoint->kind != "model");
    if (better || !out.checkpoint) out.checkpoint = std::move(each);
  }
  return out;
}

}  // namespace

Result<models::TrainingOutput> Service::output_of(std::string_view id, const http::Identity& who,
                                                  std::string_view field) {
  const std::string plain = undashed(id);
  Found found =
      TRY(platform_.db.read([&](db::Transaction& tx) -> Result<Found> { return look_up(tx, plain); }));
  if (!found.job || (!who.admin && found.job->user_id != who.user_id)) {
    Error error = not_found({"训练任务", "training job"}, id);
    error.violations.push_back({std::string(field), {"不存在", "does not exist"}});
    return error;
  }
  const Job& job = *found.job;
  if (!found.checkpoint && job.state != JobState::succeeded)
    return Error{Code::failed_precondition,
                 {"训练任务还没有产出模型", "the job has not produced a model yet"},
                 {{std::string(field), {"还没有产出", "has produced nothing yet"}}}};
  const bool from_output = !found.checkpoint || found.checkpoint->place == "output";
  const HostPlace place = TRY(launcher_.place_of(from_output ? job.spec.output : job.spec.checkpoint));
  models::TrainingOutput out;
  out.root = place.root;
  out.path = place.path;
  if (found.checkpoint && !found.checkpoint->path.empty())
    out.path += (out.path.empty() ? "" : "/") + found.checkpoint->path;
  out.user_id = job.user_id;
  out.image = job.spec.image;
  if (!found.metrics.empty()) {
    std::string text = "{";
    for (const auto& metric : found.metrics)
      text += (text.size() > 1 ? "," : "") + json::print(Json(metric.name)) + ":" +
              json::print(Json(metric.value));
    out.metrics = text + "}";
  }
  return out;
}

}  // namespace lathe::jobs
