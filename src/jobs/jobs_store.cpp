#include "jobs/jobs_store.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "db/row.h"

namespace lathe::jobs::store {

namespace {

/// A job as the table holds it.
struct Row {
  std::string id, user_id, user_name, kind, name, description, group_id, state, status;
  std::string reason;
  int reason_number = 0, reason_rank = -1;
  std::string reason_zh, reason_en;
  double progress = 0;
  int attempt = 1;
  std::string run_id;
  Time created_at{}, queued_at{};
  std::optional<Time> started_at, ended_at;
  std::int64_t version = 1;
  std::int64_t cpu = 0, memory_gb = 0, gpu = 0, vgpu = 0, mig = 0;
};

template <class T>
void cause_fields(Fields& f, T& row) {
  f.field("reason", row.reason);
  f.field("reason_number", row.reason_number);
  f.field("reason_rank", row.reason_rank);
  f.field("reason_zh", row.reason_zh);
  f.field("reason_en", row.reason_en);
}

void fields(Fields& f, Row& row) {
  f.field("id", row.id);
  f.field("user_id", row.user_id);
  f.field("user_name", row.user_name);
  f.field("kind", row.kind);
  f.field("name", row.name);
  f.field("description", row.description);
  f.field("group_id", row.group_id);
  f.field("state", row.state);
  f.field("status", row.status);
  cause_fields(f, row);
  f.field("progress", row.progress);
  f.field("attempt", row.attempt);
  f.field("run_id", row.run_id);
  f.field("created_at", row.created_at);
  f.field("queued_at", row.queued_at);
  f.field("started_at", row.started_at);
  f.field("ended_at", row.ended_at);
  f.field("version", row.version);
  f.field("cpu", row.cpu);
  f.field("memory_gb", row.memory_gb);
  f.field("gpu", row.gpu);
  f.field("vgpu", row.vgpu);
  f.field("mig", row.mig);
}

template <class T>
void write_cause(T& row, const Cause& cause) {
  row.reason = std::string(name(cause.reason));
  row.reason_number = cause.number;
  row.reason_rank = cause.rank;
  row.reason_zh = cause.detail.zh;
  row.reason_en = cause.detail.en;
}

template <class T>
Cause read_cause(T& row) {
  return {.reason = reason_named(row.reason).value_or(Reason::none),
          .number = row.reason_number,
          .rank = row.reason_rank,
          .detail = {std::move(row.reason_zh), std::move(row.reason_en)}};
}

Row row_of(const Job& job) {
  const ResourceTotal total = total_of(job.spec.groups);
  Row row;
  row.id = job.id;
  row.user_id = job.user_id;
  row.user_name = job.user_name;
  row.kind = std::string(name(job.spec.kind));
  row.name = job.name;
  row.description = job.description;
  row.group_id = job.spec.group_id;
  row.state = std::string(name(job.state));
  row.status = std::string(documented_status(job.state));
  write_cause(row, job.cause);
  row.progress = job.progress;
  row.attempt = job.attempt;
  row.run_id = job.run_id;
  row.created_at = job.created_at;
  row.queued_at = job.queued_at;
  row.started_at = job.started_at;
  row.ended_at = job.ended_at;
  row.version = job.version;
  row.cpu = total.cpu;
  row.memory_gb = total.memory_gb;
  row.gpu = total.gpu;
  row.vgpu = total.vgpu;
  row.mig = total.mig;
  return row;
}

Job job_of(Row row) {
  Job job;
  job.spec.kind = job_kind(row.kind).value_or(JobKind::modelling);
  job.spec.group_id = std::move(row.group_id);
  job.id = std::move(row.id);
  job.user_id = std::move(row.user_id);
  job.user_name = std::move(row.user_name);
  job.name = std::move(row.name);
  job.description = std::move(row.description);
  job.state = job_state(row.state).value_or(JobState::failed);
  job.cause = read_cause(row);
  job.progress = row.progress;
  job.attempt = row.attempt;
  job.run_id = std::move(row.run_id);
  job.created_at = row.created_at;
  job.queued_at = row.queued_at;
  job.started_at = row.started_at;
  job.ended_at = row.ended_at;
  job.version = row.version;
  return job;
}

std::vector<Job> jobs_of(std::vector<Row> rows) {
  std::vector<Job> out;
  out.reserve(rows.size());
  for (auto& row : rows) out.push_back(job_of(std::move(row)));
  return out;
}

JobSpec parse_spec(const std::string& text) {
  auto spec = json::parse_as<JobSpec>(text);
  if (!spec.ok()) throw db::Failure{spec.error()};
  return std::move(spec).value();
}

db::Value nullable(const std::optional<Time>& time) {
  if (!time) return {};
  return time->time_since_epoch().count();
}

db::Value text(std::string_view value) {
  return std::string(value);
}

/// Builds the ids of a list: for every kind one walk of one index, merged in the order of the ids.
class ListQuery {
 public:
  ListQuery(const Filter& filter, std::string_view before) {
    const std::string user = filter.user_id ? " AND user_id = " + bind(*filter.user_id) : "";
    const std::string status = filter.status.empty() ? "" : " AND status = " + bind(filter.status);
    const std::string older = before.empty() ? "" : " AND id < " + bind(std::string(before));
    const std::string like = filter.name_part.empty()
                                 ? ""
                                 : " AND lower(name) LIKE " + bind(pattern(filter.name_part)) + " ESCAPE '!'";
    for (const JobKind kind : filter.kinds)
      arms_.push_back("FROM jobs WHERE kind = " + bind(std::string(name(kind))) + user + status + older +
                      like);
  }

  std::string bind(db::Value value) {
    args_.push_back(std::move(value));
    return "$" + std::to_string(args_.size());
  }
  std::vector<db::Value> args() const { return args_; }

  std::string count() const {
    std::string sql;
    for (const auto& arm : arms_)
      sql += (sql.empty() ? "SELECT (SELECT count(*) " : " + (SELECT count(*) ") + arm + ")";
    return sql + " AS total";
  }

  std::string ids(bool oldest_first, std::int64_t offset, std::int64_t limit) {
    std::string ids;
    for (const auto& arm : arms_) ids += (ids.empty() ? "SELECT id " : " UNION ALL SELECT id ") + arm;
    ids += oldest_first ? " ORDER BY id" : " ORDER BY id DESC";
    return ids + " LIMIT " + bind(limit) + " OFFSET " + bind(offset);
  }

  std::string rows(bool oldest_first, std::int64_t offset, std::int64_t limit) {
    return "SELECT jobs.* FROM (" + ids(oldest_first, offset, limit) +
           ") AS page JOIN jobs ON jobs.id = page.id ORDER BY jobs.id DESC";
  }

 private:
  static std::string pattern(const std::string& part) {
    std::string out = "%";
    for (char c : part) {
      if (c == '%' || c == '_' || c == '!') out += '!';
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    return out + "%";
  }

  std::vector<db::Value> args_;
  std::vector<std::string> arms_;
};

std::optional<std::string> first_id(const db::Rows& rows) {
  if (rows.empty()) return std::nullopt;
  return rows.text(0, 0);
}

}  // namespace

std::string stored_spec(const JobSpec& spec) {
  return json::write(spec);
}

void insert_job(db::Transaction& tx, const Job& job, std::string spec, std::string request) {
  db::insert(tx, "jobs", row_of(job));
  tx.execute(
      "INSERT INTO job_specs (job_id, spec, request, model_version_id, dataset_version_id, image_id) "
      "VALUES ($1, $2, $3, $4, $5, $6)",
      {job.id, std::move(spec), std::move(request), job.spec.model_version_id, job.spec.dataset_version_id,
       job.spec.image_id});
}

bool exists(db::Transaction& tx, std::string_view id) {
  return !tx.query("SELECT 1 AS one FROM jobs WHERE id = $1", {text(id)}).empty();
}

std::optional<Job> find_row(db::Transaction& tx, std::string_view id) {
  auto row = db::select_one<Row>(tx, "SELECT * FROM jobs WHERE id = $1", {text(id)});
  if (!row) return std::nullopt;
  return job_of(std::move(*row));
}

std::optional<JobSpec> find_spec(db::Transaction& tx, std::string_view id) {
  const auto rows = tx.query("SELECT spec FROM job_specs WHERE job_id = $1", {text(id)});
  if (rows.empty()) return std::nullopt;
  return parse_spec(rows.text(0, 0));
}

std::optional<Job> find_job(db::Transaction& tx, std::string_view id) {
  auto job = find_row(tx, id);
  if (!job) return job;
  if (auto spec = find_spec(tx, id)) job->spec = std::move(*spec);
  return job;
}

std::string find_request(db::Transaction& tx, std::string_view id) {
  const auto rows = tx.query("SELECT request FROM job_specs WHERE job_id = $1", {text(id)});
  return rows.empty() ? "{}" : rows.text(0, 0);
}

bool update_job(db::Transaction& tx, Job& job) {
  const auto changed = tx.execute(
      "UPDATE jobs SET state = $1, status = $2, reason = $3, reason_number = $4, reason_rank = $5, reason_zh "
      "= $6, "
      "reason_en = $7, progress = $8, attempt = $9, run_id = $10, queued_at = $11, started_at = $12, "
      "ended_at = $13, "
      "version = version + 1 WHERE id = $14 AND version = $15",
      {text(name(job.state)), text(documented_status(job.state)), text(name(job.cause.reason)),
       std::int64_t{job.cause.number}, std::int64_t{job.cause.rank}, job.cause.detail.zh, job.cause.detail.en,
       job.progress, std::int64_t{job.attempt}, job.run_id, job.queued_at.time_since_epoch().count(),
       nullable(job.started_at), nullable(job.ended_at), job.id, job.version});
  if (changed == 0) return false;
  ++job.version;
  return true;
}

void set_progress(db::Transaction& tx, std::string_view id, double progress) {
  tx.execute("UPDATE jobs SET progress = $1 WHERE id = $2", {progress, text(id)});
}

void delete_job(db::Transaction& tx, std::string_view id) {
  tx.execute("INSERT INTO job_trash (job_id) VALUES ($1)", {text(id)});
  for (const char* table : {"job_specs", "job_runs", "job_events", "job_metrics", "job_checkpoints"})
    tx.execute(fmt::format("DELETE FROM {} WHERE job_id = $1", table), {text(id)});
  tx.execute("DELETE FROM jobs WHERE id = $1", {text(id)});
}

std::vector<Job> active_jobs(db::Transaction& tx) {
  std::vector<Job> jobs;
  for (const JobState state : {JobState::starting, JobState::running, JobState::stopping})
    for (auto& job : jobs_of(db::select<Row>(tx, "SELECT * FROM jobs WHERE ended_at IS NULL AND state = $1",
                                             {text(name(state))})))
      jobs.push_back(std::move(job));
  for (auto& job : jobs)
    if (auto spec = find_spec(tx, job.id)) job.spec = std::move(*spec);
  return jobs;
}

Statement queue_query(std::string_view after, std::int64_t limit) {
  // Not by the index on `state`, which would have to be sorted anew for every piece.
  return {"SELECT * FROM jobs WHERE state || '' = $1 AND id > $2 ORDER BY id LIMIT $3",
          {text(name(JobState::queued)), text(after), limit}};
}

std::vector<Job> queued_jobs(db::Transaction& tx, std::string_view after, std::int64_t limit) {
  const Statement query = queue_query(after, limit);
  auto jobs = jobs_of(db::select<Row>(tx, query.text, query.args));
  for (auto& job : jobs)
    if (auto spec = find_spec(tx, job.id)) job.spec = std::move(*spec);
  return jobs;
}

ResourceTotal held_by(db::Transaction& tx, std::string_view user_id, std::int64_t& jobs) {
  std::string sql =
      "SELECT count(*), COALESCE(sum(cpu), 0), COALESCE(sum(memory_gb), 0), COALESCE(sum(gpu), 0), "
      "COALESCE(sum(vgpu), 0), COALESCE(sum(mig), 0) FROM jobs WHERE ended_at IS NULL AND state IN "
      "('starting', "
      "'running', 'stopping')";
  std::vector<db::Value> args;
  if (!user_id.empty()) {
    sql += " AND user_id = $1";
    args.push_back(text(user_id));
  }
  const auto rows = tx.query(sql, std::move(args));
  jobs = rows.integer(0, 0);
  return {rows.integer(0, 1), rows.integer(0, 2), rows.integer(0, 3), rows.integer(0, 4), rows.integer(0, 5)};
}

std::int64_t open_jobs_of_user(db::Transaction& tx, std::string_view user_id) {
  return tx
      .query(
          "SELECT count(*) FROM jobs WHERE ended_at IS NULL AND user_id = $1 AND state IN ('queued', "
          "'starting', "
          "'running', 'stopping')",
          {text(user_id)})
      .integer(0, 0);
}

std::int64_t open_jobs_of_group(db::Transaction& tx, std::string_view group_id) {
  return tx.query("SELECT count(*) FROM jobs WHERE ended_at IS NULL AND group_id = $1", {text(group_id)})
      .integer(0, 0);
}

std::optional<std::string> open_user_of_model(db::Transaction& tx, std::string_view model_version_id) {
  return first_id(
      tx.query("SELECT j.id FROM job_specs s JOIN jobs j ON j.id = s.job_id WHERE s.model_version_id = $1 "
               "AND s.model_version_id <> '' AND j.ended_at IS NULL LIMIT 1",
               {text(model_version_id)}));
}

std::optional<std::string> open_user_of_dataset(db::Transaction& tx, std::string_view dataset_version_id) {
  return first_id(
      tx.query("SELECT j.id FROM job_specs s JOIN jobs j ON j.id = s.job_id WHERE s.dataset_version_id = "
               "$1 AND s.dataset_version_id <> '' AND j.ended_at IS NULL LIMIT 1",
               {text(dataset_version_id)}));
}

std::optional<std::string> open_user_of_image(db::Transaction& tx, std::string_view image_id) {
  return first_id(
      tx.query("SELECT j.id FROM job_specs s JOIN jobs j ON j.id = s.job_id WHERE s.image_id = $1 AND "
               "s.image_id <> '' AND j.ended_at IS NULL LIMIT 1",
               {text(image_id)}));
}

Listing page(db::Transaction& tx, const Filter& filter, std::int64_t offset, std::int64_t limit) {
  Listing out;
  ListQuery query(filter, {});
  out.total = tx.query(query.count(), query.args()).integer(0, 0);
  if (offset >= out.total) return out;
  const auto length = std::min(limit, out.total - offset);
  const auto from_the_end = out.total - offset - length;
  const bool oldest_first = from_the_end < offset;
  const std::string sql = query.rows(oldest_first, oldest_first ? from_the_end : offset, length);
  out.jobs = jobs_of(db::select<Row>(tx, sql, query.args()));
  return out;
}

std::vector<Job> older(db::Transaction& tx, const Filter& filter, std::string_view before,
                       std::int64_t limit) {
  ListQuery query(filter, before);
  const std::string sql = query.rows(false, 0, limit);
  return jobs_of(db::select<Row>(tx, sql, query.args()));
}

std::vector<Statement> list_queries(const Filter& filter) {
  std::vector<Statement> out;
  for (const bool oldest_first : {false, true}) {
    ListQuery query(filter, {});
    const std::string ids = query.ids(oldest_first, 5, 10);
    out.push_back({ids, query.args()});
  }
  ListQuery query(filter, "~");
  const std::string ids = query.ids(false, 0, 10);
  out.push_back({ids, query.args()});
  ListQuery count(filter, {});
  out.push_back({count.count(), count.args()});
  return out;
}

std::vector<std::string> trash(db::Transaction& tx) {
  const auto rows = tx.query("SELECT job_id FROM job_trash");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

void forget_trash(db::Transaction& tx, std::string_view job_id) {
  tx.execute("DELETE FROM job_trash WHERE job_id = $1", {text(job_id)});
}

}  // namespace lathe::jobs::store
