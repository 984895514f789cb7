#pragma once

#include <string>
#include <vector>

#include "http/slice.h"
#include "jobs/jobs_store.h"

/// The project's own job API, under /api/v1.
namespace lathe::jobs::own {

struct JobId {
  std::string id;
};
void fields(Fields& f, JobId& in);

struct ListQuery {
  http::SliceQuery slice;
  std::string userId, kind, status, name;
};
void fields(Fields& f, ListQuery& query);

struct ReasonOut {
  std::string code;     ///< "ExitCode"
  std::string label;    ///< "ExitCode 7"
  std::string message;  ///< in the caller's language
  std::int64_t rank = -1;
};
void fields(Fields& f, ReasonOut& reason);

struct JobRow {
  std::string id, name, kind, state, status, userId, userName, description, groupId;
  std::optional<ReasonOut> reason;
  double progress = 0;
  std::int64_t attempt = 1;
  Time createdAt{}, queuedAt{};
  std::optional<Time> startedAt, endedAt;
  std::optional<double> runSeconds;
};
void fields(Fields& f, JobRow& row);

struct RunOut {
  std::int64_t attempt = 1;
  std::string engine;
  std::optional<Time> startedAt, endedAt;
  std::string reason;
  double cpuSeconds = 0;
  std::int64_t memoryPeakBytes = 0;
};
void fields(Fields& f, RunOut& run);

struct PlaceOut {
  std::string source, owner, path, target;
};
void fields(Fields& f, PlaceOut& place);

struct JobOut {
  JobRow row;
  JobSpec spec;
  std::vector<RunOut> runs;
  std::int64_t ranks = 1;
};
void fields(Fields& f, JobOut& job);

struct EventOut {
  std::string id;
  Time at{};
  std::int64_t attempt = 1;
  std::string state, reason, message, log;
};
void fields(Fields& f, EventOut& event);

struct ChildQuery {
  std::string id;
  http::SliceQuery slice;
};
void fields(Fields& f, ChildQuery& query);

struct MetricQuery {
  std::string id, name;
  bool latest = false;
};
void fields(Fields& f, MetricQuery& query);

struct MetricOut {
  std::string key;
  double value = 0;
  std::optional<std::int64_t> step;
  Time time{};
};
void fields(Fields& f, MetricOut& metric);

struct Metrics {
  std::vector<MetricOut> items;
};
void fields(Fields& f, Metrics& metrics);

struct CheckpointOut {
  std::string id, place, path, kind;
  std::optional<std::int64_t> step;
  std::int64_t sizeBytes = 0;
  Time createdAt{};
  std::vector<std::string> modelVersionIds;
};
void fields(Fields& f, CheckpointOut& checkpoint);

struct Checkpoints {
  std::vector<CheckpointOut> items;
};
void fields(Fields& f, Checkpoints& checkpoints);

struct CompareQuery {
  std::string ids;
};
void fields(Fields& f, CompareQuery& query);

struct ComparedJob {
  std::string id, name, kind, status;
  Time createdAt{};
};
void fields(Fields& f, ComparedJob& job);

/// One metric across the jobs, in their order; null where a job has none of that name.
struct ComparedMetric {
  std::string key;
  std::vector<std::optional<double>> values;
};
void fields(Fields& f, ComparedMetric& metric);

struct Comparison {
  std::vector<ComparedJob> jobs;
  std::vector<ComparedMetric> metrics;
};
void fields(Fields& f, Comparison& comparison);

struct LogQuery {
  std::int64_t rank = 0, attempt = 0, tail = -1;
  bool follow = false;
};
void fields(Fields& f, LogQuery& query);

}  // namespace lathe::jobs::own
