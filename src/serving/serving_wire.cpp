#include "serving/serving_wire.h"

#include <boost/json.hpp>

namespace lathe::serving::wire {

namespace {

constexpr Rule kName{.form = Form::name};
constexpr Rule kId{.form = Form::id};

/// What the API shows of a version's specification, under the documented names.
void spec_fields(Fields& f, VersionSpec& s) {
  std::string port = s.port > 0 ? std::to_string(s.port) : "";
  std::string threshold =
      Json(s.threshold).is_double() ? std::to_string(static_cast<std::int64_t>(s.threshold)) : "";
  std::vector<Json> envs;
  for (const auto& v : s.env) envs.push_back(boost::json::object{{v.name, v.value}});
  std::vector<VolumeEntry> volumes;
  for (const auto& v : s.volumes) volumes.push_back({v.src, v.dst});
  std::string hyper = s.hyper_parameters.empty() ? "null" : s.hyper_parameters;
  f.field("aiApplicationVersionId", s.model_version_id);
  f.field("aiApplicationVersionName", s.model_name);
  f.field("image", s.image);
  f.field("command", s.command);
  f.field("algorithmId", s.algorithm_id);
  f.field("imagePorts", port);
  f.field("readyPath", s.ready_path);
  f.field("volumePath", s.volume_path);
  f.field("reqMethod", s.request_method);
  f.embedded("envs", envs);
  f.embedded("volumes", volumes);
  f.field("hyperParameterList", hyper);
  f.field("cpu", s.cpu);
  f.field("memory", s.memory_gb);
  f.field("gpu", s.gpu);
  f.field("gpuMem", s.gpu_memory_gb);
  f.field("gpuCores", s.gpu_cores);
  f.field("gpuShare", s.gpu_share);
  f.field("migRes", s.mig);
  f.field("resourceGroupId", s.group_id);
  f.field("resourceGroupKey", s.group_key);
  f.field("resourceGroupName", s.group_name);
  f.field("metric", s.metric);
  f.field("monitorThreshold", threshold);
}

}  // namespace

void fields(Fields& f, VolumeEntry& v) {
  f.field("src", v.src,
          {.doc = "用户目录下的路径", .required = true, .max_length = 4096, .form = Form::path});
  f.field("dst", v.dst,
          {.doc = "实例内的绝对路径", .required = true, .max_length = 4096, .form = Form::path});
}

void fields(Fields& f, ModelServer& m) {
  f.field("createUser", m.createUser, kId);
  f.field("userName", m.userName, kName);
  f.field("name", m.name,
          {.doc = "服务名称，在网关地址 /serve/{name}/ 中使用",
           .required = true,
           .max_length = 63,
           .form = Form::id});
  f.field("description", m.description, {.max_length = 2000});
  f.field("path", m.path, {.doc = "实例应答的路径前缀", .form = Form::path});
}

void fields(Fields& f, ModelServerVersion& v) {
  f.field("aiApplicationVersionId", v.aiApplicationVersionId, {.doc = "模型版本 id", .form = Form::id});
  f.field("command", v.command, {.doc = "执行命令", .max_length = 32768});
  f.field("cpu", v.cpu, {.doc = "CPU 核数", .min = 0, .max = 4096});
  f.field("createUser", v.createUser, kId);
  f.field("customImageFlag", v.customImageFlag,
          {.doc = "1：模型在镜像中；0：模型为文件", .min = 0, .max = 1});
  f.embedded("envs", v.envs, {.doc = "环境变量"});
  f.field("gpu", v.gpu, {.doc = "GPU 数量", .min = 0, .max = 64});
  f.field("gpuCores", v.gpuCores, {.doc = "每份算力百分比", .min = 0, .max = 100});
  f.field("gpuMem", v.gpuMem, {.doc = "每份显存 GB", .min = 0, .max = 4096});
  f.field("gpuShare", v.gpuShare, {.doc = "GPU 共享模式", .one_of = "none|vgpu|mig"});
  f.embedded("hyperParameterList", v.hyperParameterList, {.doc = "超参配置", .max_items = 500});
  f.field("image", v.image, kName);
  f.field("imagePorts", v.imagePorts, {.doc = "进程监听的端口", .form = Form::line});
  f.field("memory", v.memory, {.doc = "内存 GB", .min = 0, .max = 65536});
  f.field("metric", v.metric, {.doc = "1 每秒请求数，2 并发数，3 GPU 使用率", .min = 1, .max = 3});
  f.field("migRes", v.migRes, kId);
  f.field("modelServerId", v.modelServerId, {.doc = "已有服务的 id：为其增加版本", .form = Form::id});
  f.field("monitorThreshold", v.monitorThreshold, {.form = Form::line});
  f.field("predictMaxReplicas", v.predictMaxReplicas, {.min = 0, .max = 1000});
  f.field("predictMinReplicas", v.predictMinReplicas, {.min = 0, .max = 1000});
  f.field("rate", v.rate, {.doc = "流量比例，百分数", .min = 0, .max = 100});
  f.field("rates", v.rates, {.doc = "已有各版本的新流量比例：[{id, rate}]", .max_items = 100});
  f.field("readyPath", v.readyPath,
          {.doc = "就绪检查的 HTTP 路径，返回 2xx 即就绪；空：能连接即就绪",
           .max_length = 1024,
           .form = Form::path});
  f.field("replica", v.replica, {.min = 0, .max = 1000});
  f.field("reqMethod", v.reqMethod, {.doc = "请求方式", .one_of = "rest|grpc"});
  f.field("resourceGroupId", v.resourceGroupId, kId);
  f.field("resourceGroupKey", v.resourceGroupKey, kId);
  f.field("resourceGroupName", v.resourceGroupName, kName);
  f.field("userName", v.userName, kName);
  f.field("volumePath", v.volumePath,
          {.doc = "用户目录下的目录，在实例内为 /workspace/volume", .max_length = 4096, .form = Form::path});
  f.embedded("volumes", v.volumes, {.doc = "文件挂载"});
}

void fields(Fields& f, CreateRequest& r) {
  f.field("modelServer", r.modelServer, {.required = true});
  f.field("modelServerVersions", r.modelServerVersions, {.required = true, .max_items = 20});
}

void fields(Fields& f, Criteria& c) {
  f.field("createUser", c.createUser, kId);
  f.field("name", c.name);
}

void fields(Fields& f, ListRequest& r) {
  fields(f, static_cast<http::PageQuery&>(r));
  f.field("queryCriteria", r.queryCriteria);
}

void fields(Fields& f, IdRequest& r) {
  f.field("id", r.id, {.required = true, .form = Form::id});
}

void fields(Fields& f, ReplicaAnswer& r) {
  f.field("id", r.id);
  f.field("state", r.state);
  f.field("reason", r.reason);
  f.field("detail", r.detail);
  f.field("log", r.log, {.doc = "The last lines of one that failed"});
  f.field("port", r.port);
  f.field("createTime", r.createTime);
  f.field("startTime", r.startTime);
  f.field("readyTime", r.readyTime);
  f.field("endTime", r.endTime);
}

void fields(Fields& f, VersionAnswer& v) {
  f.field("id", v.id);
  f.field("modelServerId", v.modelServerId);
  f.field("modelServerName", v.modelServerName);
  f.field("createUser", v.createUser);
  f.field("userName", v.userName);
  f.field("version", v.version);
  f.field("rate", v.rate);
  f.field("predictMinReplicas", v.predictMinReplicas);
  f.field("predictMaxReplicas", v.predictMaxReplicas);
  f.field("replica", v.readyReplicas, {.doc = "就绪的实例数"});
  f.field("desiredReplicas", v.desiredReplicas, {.doc = "自动伸缩要求的实例数；0：休眠"});
  spec_fields(f, v.spec);
  f.field("status", v.status);
  f.field("statusReason", v.statusReason);
  f.field("createTime", v.createTime);
  f.field("replicas", v.replicas);
}

void fields(Fields& f, ServerAnswer& s) {
  f.field("id", s.id);
  f.field("name", s.name);
  f.field("description", s.description);
  f.field("createUser", s.createUser);
  f.field("userName", s.userName);
  f.field("path", s.path);
  f.field("status", s.status);
  f.field("statusReason", s.statusReason);
  f.field("url", s.url);
  f.field("createTime", s.createTime);
  f.field("updateTime", s.updateTime);
  f.field("modelServerVersions", s.modelServerVersions);
}

void fields(Fields& f, Created& c) {
  f.field("id", c.id);
  f.field("name", c.name);
  f.field("modelServerVersionIds", c.modelServerVersionIds);
}

void fields(Fields& f, VersionChange& c) {
  f.field("id", c.id, {.required = true, .form = Form::id});
  f.field("rate", c.rate, {.doc = "Share of the traffic in percent", .min = 0, .max = 100});
  f.field("minReplicas", c.minReplicas, {.doc = "0: may sleep", .min = 0, .max = 1000});
  f.field("maxReplicas", c.maxReplicas, {.min = 1, .max = 1000});
  f.field("metric", c.metric,
          {.doc = "1 requests per second, 2 concurrency, 3 GPU utilisation", .min = 1, .max = 3});
  f.field("threshold", c.threshold, {.doc = "Of the metric, for one replica", .min = 1, .max = 1e9});
}

void fields(Fields& f, ChangeRequest& r) {
  f.field("id", r.id, {.required = true, .form = Form::id});
  f.field("description", r.description, {.max_length = 2000});
  f.field("versions", r.versions, {.doc = "Versions to change", .max_items = 20});
}

void fields(Fields& f, Replicas& r) {
  f.field("items", r.items);
}

void fields(Fields& f, EventQuery& q) {
  f.field("id", q.id, {.required = true, .form = Form::id});
  fields(f, q.slice);
}

void fields(Fields& f, EventAnswer& e) {
  f.field("id", e.id);
  f.field("at", e.at);
  f.field("kind", e.kind, {.doc = "scale, rollout, replica, change"});
  f.field("reason", e.reason);
  f.field("message", e.message);
  f.field("versionId", e.versionId);
  f.field("replicaId", e.replicaId);
  f.field("replicasBefore", e.replicasBefore, {.doc = "Of a scaling decision"});
  f.field("replicasAfter", e.replicasAfter);
}

namespace {

void counted_fields(Fields& f, Counted& c) {
  f.field("requests", c.requests);
  f.field("failures", c.failures, {.doc = "No answer, or a status of 500 and above"});
  f.field("inFlight", c.inFlight);
  f.field("bytesIn", c.bytesIn);
  f.field("bytesOut", c.bytesOut);
  f.field("promptTokens", c.promptTokens, {.doc = "Where the answers said `usage`"});
  f.field("completionTokens", c.completionTokens);
  f.field("meanFirstByteSeconds", c.meanFirstByteSeconds);
  f.field("meanDurationSeconds", c.meanDurationSeconds);
}

}  // namespace

void fields(Fields& f, ReplicaMetrics& m) {
  f.field("versionId", m.versionId);
  f.field("replicaId", m.replicaId);
  f.field("draining", m.draining, {.doc = "Gets no more requests"});
  counted_fields(f, m);
}

void fields(Fields& f, VersionMetrics& m) {
  f.field("versionId", m.versionId);
  f.field("metric", m.metric, {.doc = "1 requests per second, 2 concurrency, 3 GPU utilisation"});
  f.field("target", m.target, {.doc = "What one replica is to bear of it"});
  f.field("stable", m.stable, {.doc = "Its mean over the stable window, all replicas together"});
  f.field("panic", m.panic, {.doc = "Its mean over the panic window"});
  f.field("panicking", m.panicking, {.doc = "Nothing shrinks while this lasts"});
  f.field("desiredReplicas", m.desiredReplicas);
  f.field("readyReplicas", m.readyReplicas);
  counted_fields(f, m);
}

void fields(Fields& f, MetricsAnswer& m) {
  f.field("queued", m.queued, {.doc = "Requests held until a replica is ready"});
  f.field("queuedTotal", m.queuedTotal);
  f.field("refusedTotal", m.refusedTotal, {.doc = "Answered 503 because none was ready"});
  f.field("versions", m.versions);
  f.field("items", m.items, {.doc = "By replica"});
}

}  // namespace lathe::serving::wire
