#include "serving/serving.h"

namespace lathe::serving {

namespace {

constexpr std::pair<ReplicaState, std::string_view> kStates[] = {
    {ReplicaState::starting, "starting"}, {ReplicaState::ready, "ready"},
    {ReplicaState::unready, "unready"},   {ReplicaState::draining, "draining"},
    {ReplicaState::stopping, "stopping"}, {ReplicaState::ended, "ended"}};

}  // namespace

std::string_view name(ReplicaState state) {
  for (const auto& [one, word] : kStates)
    if (one == state) return word;
  return "";
}

std::optional<ReplicaState> replica_state(std::string_view name) {
  for (const auto& [state, word] : kStates)
    if (word == name) return state;
  return std::nullopt;
}

static void fields(Fields& f, EnvVar& v) {
  f.field("name", v.name);
  f.field("value", v.value, {.max_length = 32768});
}

static void fields(Fields& f, Volume& v) {
  f.field("src", v.src, {.max_length = 4096});
  f.field("dst", v.dst, {.max_length = 4096});
}

void fields(Fields& f, VersionSpec& s) {
  constexpr Rule kLong{.max_length = 65536};
  f.field("modelVersionId", s.model_version_id);
  f.field("modelName", s.model_name, kLong);
  f.field("image", s.image, kLong);
  f.field("imageId", s.image_id);
  f.field("imageDigest", s.image_digest);
  f.field("command", s.command, kLong);
  f.field("algorithmId", s.algorithm_id);
  f.field("port", s.port);
  f.field("readyPath", s.ready_path, kLong);
  f.field("requestMethod", s.request_method);
  f.field("env", s.env);
  f.field("volumes", s.volumes);
  f.field("volumePath", s.volume_path, {.max_length = 4096});
  f.field("modelInImage", s.model_in_image);
  f.field("hyperParameters", s.hyper_parameters, kLong);
  f.field("cpu", s.cpu);
  f.field("memoryGb", s.memory_gb);
  f.field("gpu", s.gpu);
  f.field("gpuMemoryGb", s.gpu_memory_gb);
  f.field("gpuCores", s.gpu_cores);
  f.field("gpuShare", s.gpu_share);
  f.field("mig", s.mig);
  f.field("groupId", s.group_id);
  f.field("groupKey", s.group_key);
  f.field("groupName", s.group_name);
  f.field("metric", s.metric);
  f.field("threshold", s.threshold);
}

}  // namespace lathe::serving
