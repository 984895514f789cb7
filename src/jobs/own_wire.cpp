#include "jobs/own_wire.h"

namespace lathe::jobs::own {

namespace {
constexpr Rule kId{.doc = "The job's id", .required = true, .max_length = 64, .form = Form::id};
}

void fields(Fields& f, JobId& in) {
  f.field("id", in.id, kId);
}

void fields(Fields& f, ListQuery& query) {
  fields(f, query.slice);
  f.field("userId", query.userId,
          {.doc = "Whose; empty: one's own, an administrator's everybody's", .form = Form::id});
  f.field("kind", query.kind, {.one_of = "fine_tune|pretrain|modelling|evaluation"});
  f.field("status", query.status, {.one_of = "Pending|Running|Succeeded|Failed|Stopped"});
  f.field("name", query.name, {.doc = "Part of the name", .max_length = 128, .form = Form::line});
}

void fields(Fields& f, ReasonOut& reason) {
  f.field("code", reason.code);
  f.field("label", reason.label);
  f.field("message", reason.message);
  f.field("rank", reason.rank, {.doc = "Of the rank that ended the job; -1: none in particular"});
}

void fields(Fields& f, JobRow& row) {
  f.field("id", row.id);
  f.field("name", row.name);
  f.field("kind", row.kind);
  f.field("state", row.state, {.doc = "queued, starting, running, stopping, succeeded, failed or cancelled"});
  f.field("status", row.status, {.doc = "The documented word for it"});
  f.field("reason", row.reason);
  f.field("progress", row.progress, {.doc = "0 to 1"});
  f.field("userId", row.userId);
  f.field("userName", row.userName);
  f.field("description", row.description);
  f.field("groupId", row.groupId);
  f.field("attempt", row.attempt);
  f.field("createdAt", row.createdAt);
  f.field("queuedAt", row.queuedAt);
  f.field("startedAt", row.startedAt);
  f.field("endedAt", row.endedAt);
  f.field("runSeconds", row.runSeconds);
}

void fields(Fields& f, RunOut& run) {
  f.field("attempt", run.attempt);
  f.field("engine", run.engine);
  f.field("startedAt", run.startedAt);
  f.field("endedAt", run.endedAt);
  f.field("reason", run.reason);
  f.field("cpuSeconds", run.cpuSeconds);
  f.field("memoryPeakBytes", run.memoryPeakBytes);
}

void fields(Fields& f, JobOut& job) {
  fields(f, job.row);
  f.field("ranks", job.ranks);
  f.field("spec", job.spec, {.doc = "What runs, with all parameters settled"});
  f.field("runs", job.runs, {.doc = "Its attempts, the first one first"});
}

void fields(Fields& f, EventOut& event) {
  f.field("id", event.id);
  f.field("at", event.at);
  f.field("attempt", event.attempt);
  f.field("state", event.state);
  f.field("reason", event.reason);
  f.field("message", event.message);
  f.field("log", event.log, {.doc = "The last lines of the log, where it failed"});
}

void fields(Fields& f, ChildQuery& query) {
  f.field("id", query.id, kId);
  fields(f, query.slice);
}

void fields(Fields& f, MetricQuery& query) {
  f.field("id", query.id, kId);
  f.field("name", query.name, {.doc = "Only this one", .form = Form::line});
  f.field("latest", query.latest, {.doc = "Only the last value of each"});
}

void fields(Fields& f, MetricOut& metric) {
  f.field("key", metric.key);
  f.field("value", metric.value);
  f.field("step", metric.step, {.doc = "null: a final result"});
  f.field("time", metric.time);
}

void fields(Fields& f, Metrics& metrics) {
  f.field("items", metrics.items);
}

void fields(Fields& f, CheckpointOut& checkpoint) {
  f.field("id", checkpoint.id, {.doc = "What 3.1 takes as llmFineTuneTaskId to register it"});
  f.field("place", checkpoint.place, {.doc = "checkpoint or output: below which directory"});
  f.field("path", checkpoint.path);
  f.field("kind", checkpoint.kind, {.doc = "checkpoint, or model: the finished one"});
  f.field("step", checkpoint.step);
  f.field("sizeBytes", checkpoint.sizeBytes);
  f.field("createdAt", checkpoint.createdAt);
  f.field("modelVersionIds", checkpoint.modelVersionIds, {.doc = "The model versions made from it"});
}

void fields(Fields& f, Checkpoints& checkpoints) {
  f.field("items", checkpoints.items);
}

void fields(Fields& f, CompareQuery& query) {
  f.field("ids", query.ids,
          {.doc = "Jobs, separated by commas, at most 50", .required = true, .max_length = 2000});
}

void fields(Fields& f, ComparedJob& job) {
  f.field("id", job.id);
  f.field("name", job.name);
  f.field("kind", job.kind);
  f.field("status", job.status);
  f.field("createdAt", job.createdAt);
}

void fields(Fields& f, ComparedMetric& metric) {
  f.field("key", metric.key);
  f.field("values", metric.values);
}

void fields(Fields& f, Comparison& comparison) {
  f.field("jobs", comparison.jobs);
  f.field("metrics", comparison.metrics);
}

void fields(Fields& f, LogQuery& query) {
  f.field("rank", query.rank, {.doc = "Which rank's log", .min = 0, .max = 100000});
  f.field("attempt", query.attempt, {.doc = "Of which attempt; 0: the last", .min = 0, .max = 100000});
  f.field("tail", query.tail, {.doc = "Only the last lines, so many; absent: all", .min = -1, .max = 1e6});
  f.field("follow", query.follow, {.doc = "Go on as it grows, until the job is over"});
}

}  // namespace lathe::jobs::own
