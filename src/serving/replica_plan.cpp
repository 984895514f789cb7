#include "serving/replica_plan.h"

#include <boost/json.hpp>

#include "base/json.h"

namespace lathe::serving {

namespace {

constexpr std::string_view kRunPrefix = "replica-";

/// `hyperParameterList`: `[{"paramName": …, "value": …}]`, as models give it out.
std::vector<algorithms::NamedValue> given_parameters(const std::string& text) {
  std::vector<algorithms::NamedValue> out;
  const auto parsed = json::parse(text.empty() ? "[]" : text);
  if (!parsed.ok() || !parsed->is_array()) return out;
  for (const auto& item : parsed->get_array()) {
    const auto* object = item.if_object();
    if (!object) continue;
    const auto* name =
        object->if_contains("paramName") ? object->if_contains("paramName") : object->if_contains("name");
    const auto* value = object->if_contains("value");
    if (!name || !name->is_string() || !value || value->is_null()) continue;
    out.push_back({std::string(name->get_string()),
                   value->is_string() ? std::string(value->get_string()) : json::print(*value)});
  }
  return out;
}

}  // namespace

std::vector<algorithms::NamedValue> places(const VersionSpec& spec, const std::string& service_name,
                                           int port) {
  std::vector<algorithms::NamedValue> out{{"port", std::to_string(port)}, {"name", service_name}};
  if (!spec.model_version_id.empty() && !spec.model_in_image)
    out.push_back({"model_dir", std::string(kModelTarget)});
  if (!spec.volume_path.empty()) out.push_back({"volume_dir", std::string(kVolumeTarget)});
  return out;
}

std::vector<jobs::Placeholder> placeholders(const VersionSpec& spec, const std::string& name, int port) {
  std::vector<jobs::Placeholder> out;
  for (auto& place : places(spec, name, port)) out.push_back({place.name, place.value});
  return out;
}

std::vector<std::string> env_names(const VersionSpec& spec) {
  std::vector<std::string> out{"PORT", "MODEL_NAME", "HYPER_PARAMETERS", "VOLUME_DIR"};
  for (const auto& v : spec.env) out.push_back(v.name);
  return out;
}

std::string run_id_of(std::string_view replica_id) {
  return std::string(kRunPrefix).append(replica_id);
}

std::string replica_of_run(std::string_view run_id) {
  return run_id.starts_with(kRunPrefix) ? std::string(run_id.substr(kRunPrefix.size())) : "";
}

Result<engines::LaunchPlan> make_plan(db::Transaction& tx, const Parts& parts,
                                      const store::DeploymentRow& deployment, const VersionSpec& spec,
                                      const ReplicaPlace& place) {
  engines::LaunchPlan plan;
  plan.run_id = run_id_of(place.replica_id);
  plan.image = spec.image_digest.empty() ? "host" : spec.image_digest;
  plan.log_dir = place.log_dir;
  plan.max_log_bytes = 64 << 20;
  plan.env = {{"PORT", std::to_string(place.port)},
              {"MODEL_NAME", deployment.name},
              {"OMP_NUM_THREADS", std::to_string(spec.cpu)},
              {"OPENBLAS_NUM_THREADS", "1"},
              {"OMP_WAIT_POLICY", "passive"}};
  if (!spec.hyper_parameters.empty()) plan.env.push_back({"HYPER_PARAMETERS", spec.hyper_parameters});
  for (const auto& v : spec.env) plan.env.push_back({v.name, v.value});

  if (!spec.model_version_id.empty()) {
    const auto version = parts.models.version(tx, spec.model_version_id);
    if (!version || version->state != models::State::ready)
      return Error{Code::unavailable, {"模型版本尚未导入完成", "the model version is still being imported"}};
    const bool as_files = !version->root.empty() && !spec.model_in_image;
    if (as_files)
      plan.mounts.push_back(
          {.root = version->root, .path = version->path, .target = std::string(kModelTarget)});
    plan.work_dir = as_files ? std::string(kModelTarget) : "/";
  }
  for (const auto& volume : spec.volumes) {
    plan.mounts.push_back({.root = parts.files.host_path({.user_id = deployment.user_id}),
                           .path = volume.src,
                           .target = volume.dst});
    if (volume.dst == kCodeTarget) plan.work_dir = volume.dst;
  }

  if (!spec.volume_path.empty()) {
    plan.mounts.push_back({.root = parts.files.host_path({.user_id = deployment.user_id}),
                           .path = spec.volume_path,
                           .target = std::string(kVolumeTarget)});
    plan.env.push_back({"VOLUME_DIR", std::string(kVolumeTarget)});
  }

  const auto known = placeholders(spec, deployment.name, place.port);
  if (!spec.command.empty()) {
    const auto names = env_names(spec);
    const auto prepared = TRY(jobs::prepare_command(spec.command, known, names, "command"));
    plan.argv = {"/bin/sh", "-c", prepared.line};
    for (const auto& p : known)
      if (jobs::is_exported(p.name)) plan.env.push_back({p.name, p.value});
  } else {
    const algorithms::Algorithm* algorithm = parts.algorithms.find(spec.algorithm_id);
    if (!algorithm)
      return Error{
          Code::failed_precondition,
          {"预置算法已不存在：" + spec.algorithm_id, "the preset algorithm is gone: " + spec.algorithm_id}};
    auto where = places(spec, deployment.name, place.port);
    if (!algorithm->code_dir.empty()) {
      where.push_back({"algorithm_dir", "/workspace/algorithm"});
      plan.mounts.push_back({.root = algorithm->code_dir, .path = "", .target = "/workspace/algorithm"});
      plan.work_dir = "/workspace/algorithm";
    }
    const auto given = given_parameters(spec.hyper_parameters);
    const auto parameters = TRY(algorithms::settle(*algorithm, given, "hyperParameterList"));
    plan.argv = TRY(algorithms::make_argv(*algorithm, where, parameters));
    for (auto& v : TRY(algorithms::make_env(*algorithm, where, parameters)))
      plan.env.push_back({v.name, v.value});
  }
  plan.ranks.push_back({.env = {},
                        .resources = {.cpus = static_cast<double>(spec.cpu),
                                      .memory_bytes = spec.memory_gb << 30,
                                      .pids = 4096,
                                      .gpus = place.grants}});
  return plan;
}

}  // namespace lathe::serving
