#include "serving/version_builder.h"

#include <boost/json.hpp>
#include <charconv>

#include "jobs/plan/command.h"

namespace lathe::serving {

namespace {

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

/// What could never fit within `limit`, each resource by the request's own name for it.
Result<void> refuse_never(const quotas::Quota& limit, const quotas::Compute& need, const std::string& field,
                          Time now) {
  Error error{Code::unsatisfiable, {"超出可用资源", "more than there ever is"}};
  const auto look = [&](std::string_view name, const quotas::Compute& part) {
    const auto verdict = quotas::check(limit, {}, part, now);
    if (verdict.admission == quotas::Admission::exceeds_max_quota)
      error.violations.push_back({under(field, name), verdict.detail});
  };
  look("cpu", {.cpu = need.cpu});
  look("memory", {.memory_gb = need.memory_gb});
  look("gpu", {.gpu = need.gpu, .vgpu = need.vgpu, .mig = need.mig});
  if (error.violations.empty()) return {};
  return error;
}

/// Each one names itself, as `paramName` or `name`.
Result<void> check_parameters(const std::vector<Json>& list, const std::string& field) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto* object = list[i].if_object();
    const Json* name = object ? object->if_contains("paramName") : nullptr;
    if (object && !name) name = object->if_contains("name");
    if (!name || !name->is_string() || name->get_string().empty())
      return invalid_field(
          field + "[" + std::to_string(i) + "]",
          {R"(应为 {"paramName": 名称, "value": 值})", R"(must be {"paramName": NAME, "value": VALUE})"});
  }
  return {};
}

}  // namespace

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

Result<store::VersionRow> VersionBuilder::build(const wire::ModelServerVersion& request,
                                                const accounts::User& owner, const http::Identity& caller,
                                                const std::string& field) const {
  store::VersionRow row;
  VersionSpec& spec = row.spec;
  TRY(choose_model(request, caller, field, spec));
  TRY(choose_resources(request, owner, field, spec));
  spec.env = TRY(read_env(request.envs, field));
  TRY(choose_volumes(request, owner, field, spec));
  if (request.hyperParameterList) {
    TRY(check_parameters(*request.hyperParameterList, under(field, "hyperParameterList")));
    spec.hyper_parameters = json::print(
        Json(boost::json::array(request.hyperParameterList->begin(), request.hyperParameterList->end())));
  }
  spec.request_method = request.reqMethod.empty() ? "rest" : request.reqMethod;
  if (!request.imagePorts.empty())
    spec.port = TRY(read_number(request.imagePorts, 1, 65535, under(field, "imagePorts")));
  TRY(choose_command(request, field, spec));
  if (spec.request_method == "grpc" && !spec.algorithm_id.empty())
    return invalid_field(under(field, "reqMethod"),
                         {"预置推理算法只支持 rest", "the preset serving algorithms answer rest only"});
  if (spec.request_method == "grpc" && !request.readyPath.empty())
    return invalid_field(under(field, "readyPath"), {"grpc 服务以能否连接判断就绪",
                                                     "of a grpc service, accepting connections is ready"});
  if (!request.readyPath.empty()) {
    if (!request.readyPath.starts_with('/') ||
        request.readyPath.find_first_of(" \t\r\n") != std::string::npos)
      return invalid_field(under(field, "readyPath"),
                           {"应为以 / 开头的路径", "must be a path that begins with /"});
    spec.ready_path = request.readyPath;
  }
  spec.metric = request.metric;
  TRY(check_metric(spec, under(field, "metric")));
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

Result<void> VersionBuilder::choose_volumes(const wire::ModelServerVersion& request,
                                            const accounts::User& owner, const std::string& field,
                                            VersionSpec& spec) const {
  if (request.volumes.empty() && request.volumePath.empty()) return {};
  const Directory root = TRY(parts_.files.root({.user_id = owner.id}));
  const auto existing = [&](const std::string& text, const std::string& at) -> Result<std::string> {
    const auto path = TRY(Path::parse(text, at));
    if (!root.exists(path)) return invalid_field(at, {"目录不存在：" + text, "there is no " + text});
    return path.text();
  };
  for (const auto& volume : request.volumes) {
    if (!volume.dst.starts_with('/'))
      return invalid_field(under(field, "volumes"), {"dst 应为绝对路径", "dst must be an absolute path"});
    spec.volumes.push_back({TRY(existing(volume.src, under(field, "volumes"))), volume.dst});
  }
  if (!request.volumePath.empty())
    spec.volume_path = TRY(existing(request.volumePath, under(field, "volumePath")));
  return {};
}

Result<void> check_metric(const VersionSpec& spec, const std::string& field) {
  if (spec.metric != 3 || (spec.gpu > 0 && spec.gpu_share == "none")) return {};
  return invalid_field(field,
                       {"GPU 使用率只能用于独占整块 GPU 的版本：请设 gpu，gpuShare 为 none",
                        "GPU utilisation is measured of whole GPUs only: set gpu, with gpuShare none"});
}

Result<void> VersionBuilder::check_share(const VersionSpec& spec, const std::string& field) const {
  if (spec.gpu == 0 || spec.gpu_share != "vgpu") return {};
  if (spec.gpu_memory_gb == 0 && spec.gpu_cores == 0)
    return invalid_field(under(field, "gpuMem"),
                         {"gpuShare 为 vgpu 时，gpuMem 与 gpuCores 不能都为空：份额须有大小",
                          "or gpuCores is required where gpuShare is vgpu: a share has a size"});
  if (!parts_.engine.capabilities().gpu_shares)
    return about(
        under(field, "gpuShare"),
        {Code::unsatisfiable,
         {"这里没有 CUDA MPS 守护进程，无法限制 GPU 份额：gpuShare 应为 none（整卡）或 mig",
          "no CUDA MPS daemon runs here to hold a replica to a share of a GPU: gpuShare must be none "
          "(whole devices) or mig"}});
  return {};
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
    spec.model_in_image = request.customImageFlag.value_or(0) == 1;
  }
  if (request.customImageFlag.value_or(0) == 1 && image.empty())
    return invalid_field(
        under(field, "customImageFlag"),
        {"模型版本没有镜像，image 也为空", "the model version has no image, and image is empty"});
  const auto resolved =
      TRY(parts_.images.resolve(caller.user_id, caller.admin, image, under(field, "image")));
  if (resolved.kind == images::ImageRef::Kind::host) {
    spec.image = resolved.name;
    return {};
  }
  if (!parts_.engine.capabilities().runs_images)
    return invalid_field(under(field, "image"),
                         {"没有配置 Docker 或 Podman，只能使用 host 镜像",
                          "must be host: no Docker or Podman is configured to run other images"});
  if (resolved.digest.empty())
    return Error{Code::failed_precondition, {"镜像尚未导入完成", "the image is still being imported"}};
  spec.image = resolved.name + ":" + resolved.tag;
  spec.image_id = resolved.id;
  spec.image_digest = resolved.digest;
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
  TRY(check_share(spec, field));
  const auto machine = parts_.quotas.machine();
  const quotas::Quota room{.cpu = group.cpu.value_or(machine.cpu),
                           .memory_gb = group.memory_gb.value_or(machine.memory_gb)};
  TRY(refuse_never(room, compute_of(spec), field, parts_.clock.now()));
  TRY(refuse_never(TRY(parts_.quotas.quota_of(owner.id)), compute_of(spec), field, parts_.clock.now()));
  return parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    if (spec.gpu > 0 && !parts_.gpus(tx).can_ever_place({gpu_need(spec)}))
      return about(under(field, "gpu"),
                   {Code::unsatisfiable,
                    {"本机没有能满足此请求的 GPU", "this machine has no GPUs that could ever satisfy this"}});
    return {};
  });
}

}  // namespace lathe::serving
