#include "db/row.h"
#include "jobs/jobs_store.h"

namespace lathe::jobs::store {

// Found by argument-dependent lookup: the nested column and the tables' rows.
void fields(Fields& f, Granted& granted) {
  f.field("gpus", granted.gpus);
  f.field("port", granted.port);
}

void fields(Fields& f, Event& event) {
  f.field("job_id", event.job_id);
  f.field("id", event.id);
  f.field("at", event.at);
  f.field("attempt", event.attempt);
  f.field("state", event.state);
  f.field("reason", event.reason);
  f.field("zh", event.zh);
  f.field("en", event.en);
  f.field("log", event.log);
}

void fields(Fields& f, Metric& metric) {
  f.field("name", metric.name);
  f.field("step", metric.step);
  f.field("value", metric.value);
  f.field("at", metric.at);
}

void fields(Fields& f, Checkpoint& checkpoint) {
  f.field("id", checkpoint.id);
  f.field("job_id", checkpoint.job_id);
  f.field("place", checkpoint.place);
  f.field("path", checkpoint.path);
  f.field("kind", checkpoint.kind);
  f.field("step", checkpoint.step);
  f.field("size_bytes", checkpoint.size_bytes);
  f.field("created_at", checkpoint.created_at);
}

namespace {

struct RunRow {
  Run run;
  std::string reason;
};

void fields(Fields& f, RunRow& row) {
  auto& run = row.run;
  f.field("run_id", run.run_id);
  f.field("job_id", run.job_id);
  f.field("attempt", run.attempt);
  f.field("engine", run.engine);
  f.field("granted", run.granted);
  f.field("created_at", run.created_at);
  f.field("started_at", run.started_at);
  f.field("ended_at", run.ended_at);
  f.field("reason", row.reason);
  f.field("reason_number", run.cause.number);
  f.field("reason_rank", run.cause.rank);
  f.field("reason_zh", run.cause.detail.zh);
  f.field("reason_en", run.cause.detail.en);
  f.field("cpu_seconds", run.cpu_seconds);
  f.field("memory_peak_bytes", run.memory_peak_bytes);
}

RunRow row_of(const Run& run) {
  return {run, std::string(name(run.cause.reason))};
}

std::vector<Run> runs(std::vector<RunRow> rows) {
  std::vector<Run> out;
  for (auto& row : rows) {
    row.run.cause.reason = reason_named(row.reason).value_or(Reason::none);
    out.push_back(std::move(row.run));
  }
  return out;
}

db::Value text(std::string_view value) {
  return std::string(value);
}
db::Value milliseconds(Time time) {
  return std::int64_t{time.time_since_epoch().count()};
}

}  // namespace

void insert_run(db::Transaction& tx, const Run& run) {
  db::insert(tx, "job_runs", row_of(run));
}

void end_run(db::Transaction& tx, const Run& run) {
  tx.execute(
      "UPDATE job_runs SET ended_at = $1, started_at = COALESCE($2, started_at), reason = $3, reason_number "
      "= $4, "
      "reason_rank = $5, reason_zh = $6, reason_en = $7, cpu_seconds = $8, memory_peak_bytes = $9 WHERE "
      "run_id = $10",
      {run.ended_at ? milliseconds(*run.ended_at) : db::Value{},
       run.started_at ? milliseconds(*run.started_at) : db::Value{}, text(name(run.cause.reason)),
       std::int64_t{run.cause.number}, std::int64_t{run.cause.rank}, run.cause.detail.zh, run.cause.detail.en,
       run.cpu_seconds, run.memory_peak_bytes, run.run_id});
}

void set_run_started(db::Transaction& tx, std::string_view run_id, Time at) {
  tx.execute("UPDATE job_runs SET started_at = $1 WHERE run_id = $2", {milliseconds(at), text(run_id)});
}

std::optional<Run> find_run(db::Transaction& tx, std::string_view run_id) {
  auto all = runs(db::select<RunRow>(tx, "SELECT * FROM job_runs WHERE run_id = $1", {text(run_id)}));
  if (all.empty()) return std::nullopt;
  return std::move(all.front());
}

std::vector<Run> runs_of(db::Transaction& tx, std::string_view job_id) {
  return runs(
      db::select<RunRow>(tx, "SELECT * FROM job_runs WHERE job_id = $1 ORDER BY attempt", {text(job_id)}));
}

std::vector<Run> active_runs(db::Transaction& tx) {
  return runs(
      db::select<RunRow>(tx,
                         "SELECT r.* FROM jobs j JOIN job_runs r ON r.run_id = j.run_id "
                         "WHERE j.ended_at IS NULL AND j.state IN ('starting', 'running', 'stopping')"));
}

void insert_event(db::Transaction& tx, const Event& event) {
  db::insert(tx, "job_events", event);
}

std::vector<Event> events_of(db::Transaction& tx, std::string_view job_id, std::string_view after,
                             std::int64_t limit) {
  return db::select<Event>(tx, "SELECT * FROM job_events WHERE job_id = $1 AND id > $2 ORDER BY id LIMIT $3",
                           {text(job_id), text(after), limit});
}

void put_metric(db::Transaction& tx, std::string_view job_id, const Metric& metric) {
  tx.execute(
      "INSERT INTO job_metrics (job_id, name, step, value, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT "
      "(job_id, name, "
      "step) DO UPDATE SET value = excluded.value, at = excluded.at",
      {text(job_id), metric.name, metric.step, metric.value, milliseconds(metric.at)});
}

std::vector<Metric> metrics_of(db::Transaction& tx, std::string_view job_id, std::string_view name,
                               std::int64_t limit) {
  if (name.empty())
    return db::select<Metric>(tx, "SELECT * FROM job_metrics WHERE job_id = $1 ORDER BY name, step LIMIT $2",
                              {text(job_id), limit});
  return db::select<Metric>(
      tx, "SELECT * FROM job_metrics WHERE job_id = $1 AND name = $2 ORDER BY name, step LIMIT $3",
      {text(job_id), text(name), limit});
}

std::vector<Metric> latest_metrics(db::Transaction& tx, std::string_view job_id) {
  return db::select<Metric>(
      tx,
      "SELECT m.* FROM (SELECT name AS n, max(step) AS s FROM job_metrics WHERE job_id = $1 GROUP BY name) "
      "AS last "
      "JOIN job_metrics m ON m.job_id = $1 AND m.name = last.n AND m.step = last.s ORDER BY m.name",
      {text(job_id)});
}

void put_checkpoint(db::Transaction& tx, const Checkpoint& checkpoint) {
  tx.execute(
      "INSERT INTO job_checkpoints (id, job_id, place, path, kind, step, size_bytes, created_at) VALUES ($1, "
      "$2, $3, "
      "$4, $5, $6, $7, $8) ON CONFLICT (job_id, place, path) DO UPDATE SET kind = excluded.kind, step = "
      "excluded.step, "
      "size_bytes = excluded.size_bytes, created_at = excluded.created_at",
      {checkpoint.id, checkpoint.job_id, checkpoint.place, checkpoint.path, checkpoint.kind, checkpoint.step,
       checkpoint.size_bytes, milliseconds(checkpoint.created_at)});
}

void delete_checkpoint(db::Transaction& tx, std::string_view job_id, std::string_view place,
                       std::string_view path) {
  tx.execute("DELETE FROM job_checkpoints WHERE job_id = $1 AND place = $2 AND path = $3",
             {text(job_id), text(place), text(path)});
}

std::vector<Checkpoint> checkpoints_of(db::Transaction& tx, std::string_view job_id) {
  return db::select<Checkpoint>(
      tx, "SELECT * FROM job_checkpoints WHERE job_id = $1 ORDER BY step DESC, created_at DESC, id DESC",
      {text(job_id)});
}

std::optional<Checkpoint> find_checkpoint(db::Transaction& tx, std::string_view id) {
  return db::select_one<Checkpoint>(tx, "SELECT * FROM job_checkpoints WHERE id = $1", {text(id)});
}

}  // namespace lathe::jobs::store
