#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "jobs/documented_routes.h"
#include "jobs/log_stream.h"
#include "jobs/present.h"

namespace lathe::jobs {

namespace {

using http::Access;
using http::Call;
using http::Method;
using http::Slice;

http::Route route(Method method, std::string path, std::string_view id, std::string_view summary) {
  return {.method = method,
          .path = std::move(path),
          .access = Access::user,
          .id = id,
          .tag = "jobs",
          .summary = summary};
}

Result<own::JobOut> show(Service& service, const Call& call, const std::string& id) {
  const Job job = TRY(service.visible_job(call.caller, id));
  own::JobOut out;
  out.row = own::row_of(job, service.platform().clock.now(), call.request.language);
  out.spec = job.spec;
  out.ranks = static_cast<std::int64_t>(expand_ranks(job.spec.groups).size());
  const auto runs = TRY(service.platform().db.read(
      [&](db::Transaction& tx) -> Result<std::vector<store::Run>> { return store::runs_of(tx, job.id); }));
  for (const auto& run : runs) out.runs.push_back(own::run_of(run));
  return out;
}

void add_jobs(http::Api& api, Service& service) {
  api.add<own::ListQuery, Slice<own::JobRow>>(
      route(Method::get, "/api/v1/jobs", "listJobs", "Jobs of every kind, newest first"),
      [&service](Call& call, const own::ListQuery& in) -> Result<Slice<own::JobRow>> {
        const auto jobs = TRY(service.older(call.caller, {in.userId, in.kind, in.status, in.name}, in.slice));
        const Time now = service.platform().clock.now();
        std::vector<own::JobRow> rows;
        for (const auto& job : jobs) rows.push_back(own::row_of(job, now, call.request.language));
        return http::slice(in.slice, std::move(rows), [](const own::JobRow& row) { return row.id; });
      });
  api.add<own::JobId, own::JobOut>(
      route(Method::get, "/api/v1/jobs/{id}", "getJob", "One job: its state, its spec and its attempts"),
      [&service](Call& call, const own::JobId& in) -> Result<own::JobOut> {
        return show(service, call, in.id);
      });
  api.add<own::JobId, own::JobRow>(
      route(Method::post, "/api/v1/jobs/{id}/stop", "stopJob",
            "Stop a job: at once if it waits, else politely (SIGTERM), then not"),
      [&service](Call& call, const own::JobId& in) -> Result<own::JobRow> {
        const Job job = TRY(service.stop(call, in.id));
        return own::row_of(job, service.platform().clock.now(), call.request.language);
      });
  api.add<own::JobId, own::JobRow>(route(Method::post, "/api/v1/jobs/{id}/retry", "retryJob",
                                         "Queue an ended job again; it finds its checkpoints and RESUME=1"),
                                   [&service](Call& call, const own::JobId& in) -> Result<own::JobRow> {
                                     const Job job = TRY(service.retry(call, in.id));
                                     return own::row_of(job, service.platform().clock.now(),
                                                        call.request.language);
                                   });
  http::Route remove = route(Method::del, "/api/v1/jobs/{id}", "deleteJob",
                             "Delete an ended job with its logs and figures; its output stays the user's");
  remove.success_status = 204;
  api.add<own::JobId, Nothing>(std::move(remove),
                               [&service](Call& call, const own::JobId& in) -> Result<Nothing> {
                                 TRY(service.remove(call, in.id));
                                 return Nothing{};
                               });
}

void add_events(http::Api& api, Service& service) {
  api.add<own::ChildQuery, Slice<own::EventOut>>(
      route(Method::get, "/api/v1/jobs/{id}/events", "listJobEvents", "What happened to a job, oldest first"),
      [&service](Call& call, const own::ChildQuery& in) -> Result<Slice<own::EventOut>> {
        const Job job = TRY(service.visible_row(call.caller, in.id));
        const auto events =
            TRY(service.platform().db.read([&](db::Transaction& tx) -> Result<std::vector<store::Event>> {
              return store::events_of(tx, job.id, in.slice.cursor, in.slice.limit());
            }));
        std::vector<own::EventOut> out;
        for (const auto& event : events) out.push_back(own::event_of(event, call.request.language));
        return http::slice(in.slice, std::move(out), [](const own::EventOut& event) { return event.id; });
      });
}

constexpr std::int64_t kMostMetrics = 100'000;

Result<own::Comparison> compare(Service& service, const Call& call, const std::string& list) {
  own::Comparison out;
  std::map<std::string, std::vector<std::optional<double>>> values;
  std::vector<Job> jobs;
  for (std::size_t start = 0; start <= list.size();) {
    const auto end = std::min(list.find(',', start), list.size());
    if (end > start)
      jobs.push_back(TRY(service.visible_row(call.caller, list.substr(start, end - start), "ids")));
    start = end + 1;
  }
  constexpr std::size_t kMost = 50;
  if (jobs.size() > kMost) return invalid_field("ids", {"不能超过 50 个", "must not be more than 50"});
  const auto read = service.platform().db.read([&](db::Transaction& tx) -> Result<void> {
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      for (const auto& metric : store::latest_metrics(tx, jobs[i].id)) {
        auto& row = values[metric.name];
        row.resize(jobs.size());
        row[i] = metric.value;
      }
    }
    return {};
  });
  TRY(Result<void>(read));
  for (const auto& job : jobs)
    out.jobs.push_back({job.id, job.name, std::string(name(job.spec.kind)),
                        std::string(documented_status(job.state)), job.created_at});
  for (auto& [key, row] : values) out.metrics.push_back({key, std::move(row)});
  return out;
}

void add_metrics(http::Api& api, Service& service) {
  api.add<own::MetricQuery, own::Metrics>(
      route(Method::get, "/api/v1/jobs/{id}/metrics", "listJobMetrics", "A job's metrics by name and step"),
      [&service](Call& call, const own::MetricQuery& in) -> Result<own::Metrics> {
        const Job job = TRY(service.visible_row(call.caller, in.id));
        const auto found =
            TRY(service.platform().db.read([&](db::Transaction& tx) -> Result<std::vector<store::Metric>> {
              if (in.latest) return store::latest_metrics(tx, job.id);
              return store::metrics_of(tx, job.id, in.name, kMostMetrics);
            }));
        own::Metrics out;
        for (const auto& metric : found)
          if (in.name.empty() || metric.name == in.name) out.items.push_back(own::metric_of(metric));
        return out;
      });
  api.add<own::CompareQuery, own::Comparison>(
      route(Method::get, "/api/v1/job-metrics", "compareJobMetrics",
            "The last values of several jobs' metrics side by side"),
      [&service](Call& call, const own::CompareQuery& in) -> Result<own::Comparison> {
        return compare(service, call, in.ids);
      });
}

void add_checkpoints(http::Api& api, Service& service) {
  api.add<own::JobId, own::Checkpoints>(
      route(Method::get, "/api/v1/jobs/{id}/checkpoints", "listJobCheckpoints",
            "A job's checkpoints and finished model, newest step first"),
      [&service](Call& call, const own::JobId& in) -> Result<own::Checkpoints> {
        const Job job = TRY(service.visible_row(call.caller, in.id));
        const auto found = TRY(
            service.platform().db.read([&](db::Transaction& tx) -> Result<std::vector<store::Checkpoint>> {
              return store::checkpoints_of(tx, job.id);
            }));
        std::vector<std::string> ids;
        for (const auto& each : found) ids.push_back(each.id);
        const auto versions = TRY(service.platform().models.versions_of_outputs(ids));
        own::Checkpoints out;
        for (const auto& each : found) {
          own::CheckpointOut row{.id = each.id,
                                 .place = each.place,
                                 .path = each.path,
                                 .kind = each.kind,
                                 .sizeBytes = each.size_bytes,
                                 .createdAt = each.created_at};
          if (each.step >= 0) row.step = each.step;
          for (const auto& version : versions)
            if (undashed(version.training_output) == each.id) row.modelVersionIds.push_back(version.id);
          out.items.push_back(std::move(row));
        }
        return out;
      });
}

/// The fields of the query string, by the same description as everything else.
Result<own::LogQuery> log_query(const http::Request& request) {
  boost::json::object given;
  for (const auto& [name, value] : request.query) given[name] = value;
  return json::read<own::LogQuery>(given);
}

Result<http::Response> log_of(Service& service, const Call& call) {
  const auto query = TRY(log_query(call.request));
  const Job job = TRY(service.visible_job(call.caller, call.request.capture("id")));
  const auto ranks = static_cast<std::int64_t>(expand_ranks(job.spec.groups).size());
  if (query.rank >= ranks)
    return invalid_field("rank",
                         {"没有这个节点", "there is no such rank: 0 to " + std::to_string(ranks - 1)});
  const int attempt = query.attempt == 0 ? job.attempt : static_cast<int>(query.attempt);
  if (attempt > job.attempt) return invalid_field("attempt", {"没有这次运行", "there was no such attempt"});
  LogRequest log;
  log.path = service.launcher().log_path(job.id, attempt, static_cast<int>(query.rank));
  log.tail_lines = query.tail;
  log.follow = query.follow;
  log.event_stream = call.request.headers.get("Accept").find("text/event-stream") != std::string_view::npos;
  log.over = [&service, caller = call.caller, id = job.id, attempt] {
    const auto now = service.visible_row(caller, id);
    return !now.ok() || is_ended(now->state) || now->attempt != attempt;
  };
  http::Response out;
  out.headers.set("Content-Type",
                  log.event_stream ? "text/event-stream; charset=utf-8" : "text/plain; charset=utf-8");
  out.headers.set("Cache-Control", "no-store");
  out.headers.set("X-Accel-Buffering", "no");
  out.body = stream_log(std::move(log));
  return out;
}

void add_logs(http::Api& api, Service& service) {
  http::Api::RawOptions options;
  options.answer_type = "text/plain";
  options.parameters = json::schema<own::LogQuery>();
  api.add_raw(
      route(Method::get, "/api/v1/jobs/{id}/logs", "getJobLog",
            "A rank's log, whole or its tail; follow=true goes on as it grows (an event stream if accepted)"),
      std::move(options), [&service](Call& call) -> Result<http::Response> { return log_of(service, call); });
}

}  // namespace

void add_own_routes(http::Api& api, Service& service) {
  add_jobs(api, service);
  add_events(api, service);
  add_metrics(api, service);
  add_checkpoints(api, service);
  add_logs(api, service);
}

}  // namespace lathe::jobs
