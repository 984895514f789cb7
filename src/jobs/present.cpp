#include "jobs/present.h"

namespace lathe::jobs {

TaskStatus status_of(const Job& job, Time now, Language language) {
  TaskStatus out;
  out.status = std::string(documented_status(job.state));
  out.statusReason = label(job.cause);
  out.statusMessage = in(language, describe(job.cause));
  out.progress = job.progress;
  out.createTime = job.created_at;
  out.startTime = job.started_at;
  out.endTime = job.ended_at;
  if (const auto ran = run_time(job, now)) out.runTime = format_duration(*ran);
  return out;
}

TaskRow row_of(const Job& job, Time now, Language language) {
  TaskRow out;
  out.id = out.taskId = job.id;
  out.name = out.jobName = job.name;
  out.describe = job.description;
  out.userId = job.user_id;
  out.userName = job.user_name;
  out.isPretrain = job.spec.kind == JobKind::pretrain ? 1 : 0;
  out.status = status_of(job, now, language);
  return out;
}

EvaluationRow evaluation_row_of(const Job& job, Time now) {
  const auto ran = run_time(job, now);
  return {.id = dashed(job.id),
          .name = job.name,
          .status = std::string(documented_status(job.state)),
          .runTime = ran ? format_duration(*ran) : "",
          .description = job.description,
          .creatorId = job.user_id,
          .createTime = job.created_at};
}

CheckpointRow checkpoint_row_of(const store::Checkpoint& checkpoint, const JobSpec& spec) {
  const auto& directory = checkpoint.place == "output" ? spec.output : spec.checkpoint;
  CheckpointRow out;
  out.id = checkpoint.id;
  out.path = "/" + directory.path;
  if (!checkpoint.path.empty()) out.path += "/" + checkpoint.path;
  out.name = out.path.substr(out.path.rfind('/') + 1);
  out.step = checkpoint.step;
  out.size = static_cast<double>(checkpoint.size_bytes) / 1024;
  out.createTime = checkpoint.created_at;
  return out;
}

namespace own {

JobRow row_of(const Job& job, Time now, Language language) {
  JobRow out;
  out.id = job.id;
  out.name = job.name;
  out.kind = std::string(lathe::name(job.spec.kind));
  out.state = std::string(lathe::name(job.state));
  out.status = std::string(documented_status(job.state));
  if (job.cause.reason != Reason::none)
    out.reason = ReasonOut{std::string(lathe::name(job.cause.reason)), label(job.cause),
                           in(language, describe(job.cause)), job.cause.rank};
  out.progress = job.progress;
  out.userId = job.user_id;
  out.userName = job.user_name;
  out.description = job.description;
  out.groupId = job.spec.group_id;
  out.attempt = job.attempt;
  out.createdAt = job.created_at;
  out.queuedAt = job.queued_at;
  out.startedAt = job.started_at;
  out.endedAt = job.ended_at;
  if (const auto ran = run_time(job, now)) out.runSeconds = static_cast<double>(ran->count()) / 1000;
  return out;
}

RunOut run_of(const store::Run& run) {
  return {.attempt = run.attempt,
          .engine = run.engine,
          .startedAt = run.started_at,
          .endedAt = run.ended_at,
          .reason = label(run.cause),
          .cpuSeconds = run.cpu_seconds,
          .memoryPeakBytes = run.memory_peak_bytes};
}

EventOut event_of(const store::Event& event, Language language) {
  return {.id = event.id,
          .at = event.at,
          .attempt = event.attempt,
          .state = event.state,
          .reason = event.reason,
          .message = language == Language::zh ? event.zh : event.en,
          .log = event.log};
}

MetricOut metric_of(const store::Metric& metric) {
  MetricOut out{.key = metric.name, .value = metric.value, .time = metric.at};
  if (metric.step >= 0) out.step = metric.step;
  return out;
}

}  // namespace own

}  // namespace lathe::jobs
