#pragma once

#include <optional>
#include <string>
#include <vector>

#include "http/api.h"
#include "http/slice.h"
#include "serving/serving_store.h"

/// Section 8 of the documented API, and /api/v1/deployments. The names are the documents'.
namespace lathe::serving::wire {

/// `envs`: a list of objects; each member of one is a variable.
struct EnvObjects {
  std::vector<Json> list;
};
struct VolumeEntry {
  std::string src, dst;
};
void fields(Fields& f, VolumeEntry& v);

struct ModelServer {
  std::string createUser, userName, name, description, path;
};
void fields(Fields& f, ModelServer& m);

struct ModelServerVersion {
  std::string aiApplicationVersionId, command, createUser, userName;
  std::int64_t cpu = 0, memory = 0;
  std::optional<std::int64_t> customImageFlag;
  std::vector<Json> envs;
  std::int64_t gpu = 0, gpuCores = 0, gpuMem = 0;
  std::string gpuShare;
  std::optional<std::vector<Json>> hyperParameterList;
  std::string image, imagePorts;
  std::int64_t metric = 1;
  std::string migRes, modelServerId, monitorThreshold;
  std::optional<std::int64_t> predictMaxReplicas, predictMinReplicas, replica;
  std::optional<std::int64_t> rate;
  std::vector<Json> rates;
  std::string readyPath, reqMethod, resourceGroupId, resourceGroupKey, resourceGroupName, volumePath;
  std::vector<VolumeEntry> volumes;
};
void fields(Fields& f, ModelServerVersion& v);

struct CreateRequest {
  ModelServer modelServer;
  std::vector<ModelServerVersion> modelServerVersions;
};
void fields(Fields& f, CreateRequest& r);

struct Criteria {
  std::string createUser, name;
};
void fields(Fields& f, Criteria& c);
struct ListRequest : http::PageQuery {
  Criteria queryCriteria;
};
void fields(Fields& f, ListRequest& r);

struct IdRequest {
  std::string id;
};
void fields(Fields& f, IdRequest& r);

struct ReplicaAnswer {
  std::string id, state, reason, detail, log;
  std::int64_t port = 0;
  Time createTime{};
  std::optional<Time> startTime, readyTime, endTime;
};
void fields(Fields& f, ReplicaAnswer& r);

struct VersionAnswer {
  std::string id, modelServerId, modelServerName, createUser, userName;
  std::int64_t version = 1, rate = 100, predictMinReplicas = 1, predictMaxReplicas = 1, readyReplicas = 0,
               desiredReplicas = 1;
  VersionSpec spec;
  std::string status, statusReason;
  Time createTime{};
  std::vector<ReplicaAnswer> replicas;
};
void fields(Fields& f, VersionAnswer& v);

struct ServerAnswer {
  std::string id, name, description, createUser, userName, path, status, statusReason, url;
  Time createTime{}, updateTime{};
  std::vector<VersionAnswer> modelServerVersions;
};
void fields(Fields& f, ServerAnswer& s);

struct Created {
  std::string id, name;
  std::vector<std::string> modelServerVersionIds;
};
void fields(Fields& f, Created& c);

/// PATCH /api/v1/deployments/{id}: what is absent stays.
struct VersionChange {
  std::string id;
  std::optional<std::int64_t> rate, minReplicas, maxReplicas, metric;
  std::optional<double> threshold;
};
void fields(Fields& f, VersionChange& c);
struct ChangeRequest {
  std::string id;
  std::optional<std::string> description;
  std::vector<VersionChange> versions;
};
void fields(Fields& f, ChangeRequest& r);

struct Replicas {
  std::vector<ReplicaAnswer> items;
};
void fields(Fields& f, Replicas& r);

struct EventQuery {
  std::string id;
  http::SliceQuery slice;
};
void fields(Fields& f, EventQuery& q);
struct EventAnswer {
  std::string id;
  Time at{};
  std::string kind, reason, message, versionId, replicaId;
  std::optional<std::int64_t> replicasBefore, replicasAfter;
};
void fields(Fields& f, EventAnswer& e);

/// What the gateway has counted.
struct Counted {
  std::int64_t requests = 0, failures = 0, inFlight = 0, bytesIn = 0, bytesOut = 0, promptTokens = 0,
               completionTokens = 0;
  double meanFirstByteSeconds = 0, meanDurationSeconds = 0;
};
struct ReplicaMetrics : Counted {
  std::string versionId, replicaId;
  bool draining = false;
};
void fields(Fields& f, ReplicaMetrics& m);
/// What the autoscaler goes by.
struct VersionMetrics : Counted {
  std::string versionId;
  std::int64_t metric = 1, desiredReplicas = 0, readyReplicas = 0;
  double target = 0;
  std::optional<double> stable, panic;
  bool panicking = false;
};
void fields(Fields& f, VersionMetrics& m);
struct MetricsAnswer {
  std::int64_t queued = 0, queuedTotal = 0, refusedTotal = 0;
  std::vector<VersionMetrics> versions;
  std::vector<ReplicaMetrics> items;
};
void fields(Fields& f, MetricsAnswer& m);

}  // namespace lathe::serving::wire
