#include "serving/version_builder.h"

#include <boost/json.hpp>
#include <charconv>

#include "jobs/plan/command.h"

namespace lathe::serving {

namespace {

constexpr std::string_view kRunPrefix = "replica-";

std::string under(const std::string& field, std::string_view name) {
  return field + "." + std::string(name);
}

/// `envs` is a list of objects whose members are variables; `{name, value}` pairs are understood too.
Result<std::vector<EnvVar>> read_env(const std::vector<Json>& list, const std::string& field) {
  std::vector<EnvVar> out;
  auto add = [&](std::string_view name, const Json& value) -> Result<void> {
    const std::string text = value.is_string() ? std::string(value.get_string()) : json::print(value);
    const bool named_well = !name.empty() &&
                            name.find_first_not_of(
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789_") == std::string_view::npos &&
                            (name[0] < '0' || name[0] > '9');
    if (!named_well)
      return invalid_field(under(field, "envs"), {"不是合法的变量名：" + std::string(name),
                                                  "is not the name of a variable: " + std::string(name)});
    if (name.starts_with("LD_") || name.starts_with("LATHE_"))
      return invalid_field(under(field, "envs"), {"不能设置变量 " + std::string(name),
                                                  "must not set the variable " + std::string(name)});
    if (text.find('\0') != std::string::npos || text.size() > 32768)
      return invalid_field(under(field, "envs"),
                           {"变量值过长或含有空字符", "has a value that is too long or holds NUL"});
    out.push_back({std::string(name), text});
    return {};
  };
  for (const auto& item : list) {
    const auto* object = item.if_object();
    if (!object) return invalid_field(under(field, "envs"), {"应为对象的数组", "must be a list of objects"});
    const auto* name = object->if_contains("name");
    const auto* value = object->if_contains("value");
    if (name && value && object->size() == 2 && name->is_string()) {
      TRY(add(std::string_view(name->get_string()), *value));
    } else {
      for (const auto& member : *object) TRY(add(member.key(), member.value()));
    }
  }
  return out;
}

Result<std::int64_t> read_number(const std::string& text, double low, double high, const std::string& field) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || static_cast<double>(value) < low ||
      static_cast<double>(value) > high)
    return invalid_field(
        field, {"应为 " + std::to_string(static_cast<std::int64_t>(low)) + " 到 " +
                    std::to_string(static_cast<std::int64_t>(high)) + " 之间的整数",
                "must be a whole number from " + std::to_string(static_cast<std::int64_t>(low)) + " to " +
                    std::to_string(static_cast<std::int64_t>(high))});
  return value;
}

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

std::vector<jobs::Placeholder> placeholders(const VersionSpec& spec, const std::string& name, int port) {
  std::vector<jobs::Placeholder> out;
  for (auto& place : places(spec, name, port)) out.push_back({place.name, place.value});
  return out;
}

std::vector<std::string> env_names(const VersionSpec& spec) {
  std::vector<std::string> out{"PORT", "MODEL_NAME", "HYPER_PARAMETERS"};
  for (const auto& v : spec.env) out.push_back(v.name);
  return out;
}

}  // namespace

std::string run_id_of(std::string_view replica_id) {
  return std::string(kRunPrefix).append(replica_id);
}

std::string replica_of_run(std::string_view run_id) {
  return run_id.starts_with(kRunPrefix) ? std::string(run_id.substr(kRunPrefix.size())) : "";
}

engines::GpuNeed gpu_need(const VersionSpec& spec) {
  using Mode = engines::GpuNeed::Mode;
  return {.mode = spec.gpu_share == "vgpu"  ? Mode::share
                  : spec.gpu_share == "mig" ? Mode::slice
                                            : Mode::whole,
          .count = spec.gpu,
          .memory_bytes = spec.gpu_memory_gb << 30,
          .cores_percent = spec.gpu_cores,
          .profile = spec.mig};
}

quotas::Compute compute_of(const VersionSpec& spec) {
  return {.cpu = static_cast<double>(spec.cpu),
          .memory_gb = static_cast<double>(spec.memory_gb),
          .gpu = spec.gpu_share == "none" ? spec.gpu : 0,
          .vgpu = spec.gpu_share == "vgpu" ? spec.gpu : 0,
          .mig = spec.gpu_share == "mig" ? spec.gpu : 0,
          .jobs = 0};
}

std::vector<algorithms::NamedValue> places(const VersionSpec& spec, const std::string& service_name,
                                           int port) {
  std::vector<algorithms::NamedValue> out{{"port", std::to_string(port)}, {"name", service_name}};
  if (!spec.model_version_id.empty()) out.push_back({"model_dir", std::string(kModelTarget)});
  return out;
}

Result<store::VersionRow> VersionBuilder::build(const wire::ModelServerVersion& request,
                                                const accounts::User& owner, const http::Identity& caller,
                                                const std::string& field) const {
  store::VersionRow row;
  VersionSpec& spec = row.spec;
  TRY(choose_model(request, caller, field, spec));
  TRY(choose_resources(request, owner, field, spec));
  spec.env = TRY(read_env(request.envs, field));
  for (const auto& volume : request.volumes) {
    const auto path = TRY(Path::parse(volume.src, under(field, "volumes")));
    if (!volume.dst.starts_with('/'))
      return invalid_field(under(field, "volumes"), {"dst 应为绝对路径", "dst must be an absolute path"});
    const Directory root = TRY(parts_.files.root({.user_id = owner.id}));
    if (!root.exists(path))
      return invalid_field(under(field, "volumes"),
                           {"目录不存在：" + volume.src, "there is no " + volume.src});
    spec.volumes.push_back({path.text(), volume.dst});
  }
  if (request.hyperParameterList) spec.hyper_parameters = json::print(*request.hyperParameterList);
  spec.request_method = request.reqMethod.empty() ? "rest" : request.reqMethod;
  if (!request.imagePorts.empty())
    spec.port = TRY(read_number(request.imagePorts, 1, 65535, under(field, "imagePorts")));
  TRY(choose_command(request, field, spec));
  spec.metric = request.metric;
  if (!request.monitorThreshold.empty())
    spec.threshold = static_cast<double>(
        TRY(read_number(request.monitorThreshold, 1, 1e9, under(field, "monitorThreshold"))));

  row.rate = request.rate.value_or(100);
  row.min_replicas = request.predictMinReplicas ? *request.predictMinReplicas : request.replica.value_or(1);
  row.max_replicas = std::max(request.predictMaxReplicas.value_or(row.min_replicas), std::int64_t{1});
  if (row.max_replicas < row.min_replicas)
    return invalid_field(under(field, "predictMaxReplicas"),
                         {"不能小于 predictMinReplicas", "must not be less than predictMinReplicas"});
  if (spec.port != 0 && row.max_replicas > 1)
    return invalid_field(
        under(field, "command"),
        {"多个实例在同一台机器上时，命令须用 ${port} 或 $PORT 取得端口",
         "with several replicas on one machine the command must take its port from ${port} or $PORT"});
  row.model_version_id = spec.model_version_id;
  return row;
}

Result<void> VersionBuilder::choose_model(const wire::ModelServerVersion& request,
                                          const http::Identity& caller, const std::string& field,
                                          VersionSpec& spec) const {
  std::string image = request.image;
  if (!request.aiApplicationVersionId.empty()) {
    const auto version = TRY(parts_.models.version(request.aiApplicationVersionId, caller,
                                                   under(field, "aiApplicationVersionId")));
    if (version.state == models::State::failed)
      return Error{Code::failed_precondition,
                   {"模型版本导入失败，不能部署", "the model version failed to import and cannot be served"}};
    spec.model_version_id = version.id;
    spec.model_name = version.full_name();
    if (image.empty()) image = version.image;
  }
  const auto resolved =
      TRY(parts_.images.resolve(caller.user_id, caller.admin, image, under(field, "image")));
  if (resolved.kind != images::ImageRef::Kind::host)
    return invalid_field(under(field, "image"),
                         {"本机的 process 引擎只能运行 host 镜像",
                          "the process engine of this machine runs the image host only"});
  spec.image = resolved.name;
  return {};
}

Result<void> VersionBuilder::choose_command(const wire::ModelServerVersion& request, const std::string& field,
                                            VersionSpec& spec) const {
  spec.command = request.command;
  if (spec.command.empty()) {
    const algorithms::Algorithm* fitting = nullptr;
    if (!spec.model_version_id.empty()) {
      const auto version = TRY(parts_.models.version(spec.model_version_id));
      fitting = parts_.algorithms.serving_for(version.facts);
    }
    if (!fitting)
      return invalid_field(under(field, "command"),
                           {"不能为空：没有适合此模型的预置推理算法",
                            "is required: no preset serving algorithm fits this model"});
    spec.algorithm_id = fitting->id;
    spec.ready_path = fitting->ready_path;
    spec.port = 0;  // preset algorithms take the port they are given
    return {};
  }
  const auto known = placeholders(spec, "name", 1);
  const auto names = env_names(spec);
  TRY(jobs::prepare_command(spec.command, known, names, under(field, "command")));
  const bool takes_port = spec.command.find("${port}") != std::string::npos ||
                          spec.command.find("$PORT") != std::string::npos ||
                          spec.command.find("${PORT}") != std::string::npos;
  if (takes_port) spec.port = 0;
  if (!takes_port && spec.port == 0)
    return invalid_field(under(field, "imagePorts"),
                         {"不能为空：命令没有用 ${port} 或 $PORT 取得端口",
                          "is required: the command does not take its port from ${port} or $PORT"});
  return {};
}

Result<void> VersionBuilder::choose_resources(const wire::ModelServerVersion& request,
                                              const accounts::User& owner, const std::string& field,
                                              VersionSpec& spec) const {
  const std::string id_field = under(field, "resourceGroupId"), key_field = under(field, "resourceGroupKey"),
                    name_field = under(field, "resourceGroupName");
  const auto group = TRY(parts_.quotas.resolve_group(owner.id, {.id = request.resourceGroupId,
                                                                .key = request.resourceGroupKey,
                                                                .name = request.resourceGroupName,
                                                                .id_field = id_field,
                                                                .key_field = key_field,
                                                                .name_field = name_field}));
  spec.group_id = group.id;
  spec.group_key = group.key;
  spec.group_name = group.name;
  spec.cpu = std::max<std::int64_t>(1, request.cpu);
  spec.memory_gb = std::max<std::int64_t>(1, request.memory);
  spec.gpu = request.gpu;
  spec.gpu_memory_gb = request.gpuMem;
  spec.gpu_cores = request.gpuCores;
  spec.gpu_share = request.gpuShare.empty() ? "none" : request.gpuShare;
  spec.mig = request.migRes;
  const auto never = [&](const quotas::Quota& limit) {
    return quotas::refuse_never(quotas::check(limit, {}, compute_of(spec), parts_.clock.now()));
  };
  const auto machine = parts_.quotas.machine();
  TRY(never(
      {.cpu = group.cpu.value_or(machine.cpu), .memory_gb = group.memory_gb.value_or(machine.memory_gb)}));
  TRY(never(TRY(parts_.quotas.quota_of(owner.id))));
  return parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    if (spec.gpu > 0 && !parts_.gpus(tx).can_ever_place({gpu_need(spec)}))
      return Error{Code::unsatisfiable,
                   {"本机没有能满足此请求的 GPU", "this machine has no GPUs that could ever satisfy this"}};
    return {};
  });
}

Result<engines::LaunchPlan> make_plan(db::Transaction& tx, const Parts& parts,
                                      const store::DeploymentRow& deployment, const VersionSpec& spec,
                                      const ReplicaPlace& place) {
  engines::LaunchPlan plan;
  plan.run_id = run_id_of(place.replica_id);
  plan.image = "host";
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
    if (!version->root.empty())
      plan.mounts.push_back(
          {.root = version->root, .path = version->path, .target = std::string(kModelTarget)});
    plan.work_dir = version->root.empty() ? "/" : std::string(kModelTarget);
  }
  for (const auto& volume : spec.volumes) {
    plan.mounts.push_back({.root = parts.files.host_path({.user_id = deployment.user_id}),
                           .path = volume.src,
                           .target = volume.dst});
    if (volume.dst == kCodeTarget) plan.work_dir = volume.dst;
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
