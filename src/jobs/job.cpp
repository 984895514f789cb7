#include "jobs/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace lathe {

namespace {

constexpr std::array<std::string_view, 4> kKindNames{"fine_tune", "pretrain", "modelling", "evaluation"};
constexpr std::array<std::string_view, 7> kStateNames{"queued",    "starting", "running",  "stopping",
                                                      "succeeded", "failed",   "cancelled"};
constexpr std::array<std::string_view, 7> kStatuses{"Pending",   "Pending", "Running", "Running",
                                                    "Succeeded", "Failed",  "Stopped"};
constexpr std::array<std::string_view, 3> kShareNames{"none", "vgpu", "mig"};

template <class Enum, std::size_t N>
std::optional<Enum> find(const std::array<std::string_view, N>& names, std::string_view name) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) return std::nullopt;
  return static_cast<Enum>(at - names.begin());
}

const std::array<ReasonInfo, kReasonCount>& table() {
  using R = Reason;
  constexpr auto kWaiting = ReasonClass::waiting, kRefused = ReasonClass::refused,
                 kEnded = ReasonClass::ended;
  static const std::array<ReasonInfo, kReasonCount> all{{
      {R::none, "", ReasonClass::none, "", {"", ""}},
      {R::waiting_for_turn,
       "WaitingForTurn",
       kWaiting,
       "Pending",
       {"排队中，前面还有其他任务", "queued behind other jobs"}},
      {R::waiting_for_capacity,
       "WaitingForCapacity",
       kWaiting,
       "Pending",
       {"资源组当前没有足够的空闲资源", "the resource group has no room now"}},
      {R::waiting_for_quota,
       "WaitingForQuota",
       kWaiting,
       "Pending",
       {"用户配额已被其他任务或服务占满", "the user's quota is used up by other jobs and services"}},
      {R::quota_not_yet_valid,
       "QuotaNotYetValid",
       kWaiting,
       "Pending",
       {"用户配额尚未生效", "the user's quota is not valid yet"}},
      {R::quota_expired,
       "QuotaExpired",
       kWaiting,
       "Pending",
       {"用户配额已过期，请联系管理员延期", "the user's quota has expired; an administrator can prolong it"}},
      {R::waiting_for_image,
       "WaitingForImage",
       kWaiting,
       "Pending",
       {"镜像正在导入", "its image is still being imported"}},
      {R::waiting_for_model,
       "WaitingForModel",
       kWaiting,
       "Pending",
       {"模型版本正在导入", "its model version is still being imported"}},
      {R::waiting_for_engine,
       "WaitingForEngine",
       kWaiting,
       "Pending",
       {"资源组的运行引擎暂不可用", "the engine of its resource group does not answer"}},
      {R::waiting_to_restart,
       "WaitingToRestart",
       kWaiting,
       "Pending",
       {"上次运行因平台原因中断，即将重新启动",
        "its last attempt was interrupted; it will start again shortly"}},
      {R::exceeds_max_quota,
       "ExceedsMaxQuota",
       kRefused,
       "Failed",
       {"申请的资源超过用户的全部配额", "asks for more than the user's whole quota"}},
      {R::exceeds_group,
       "ExceedsGroup",
       kRefused,
       "Failed",
       {"申请的资源超过资源组的全部容量", "asks for more than the resource group has"}},
      {R::group_unavailable,
       "GroupUnavailable",
       kRefused,
       "Failed",
       {"资源组不存在或不再允许该用户使用", "the resource group is gone or closed to the user"}},
      {R::input_unavailable,
       "InputUnavailable",
       kRefused,
       "Failed",
       {"镜像、模型、数据集或目录已不存在", "its image, model, dataset or a directory is gone"}},
      {R::completed, "Completed", kEnded, "Succeeded", {"运行成功", "it finished"}},
      {R::exit_code,
       "ExitCode",
       kEnded,
       "Failed",
       {"程序以非零退出码结束", "the program ended with an error"}},
      {R::signal, "Signal", kEnded, "Failed", {"程序被信号终止", "the program was killed by a signal"}},
      {R::out_of_memory,
       "OutOfMemory",
       kEnded,
       "Failed",
       {"内存超出申请量", "it used more memory than it asked for"}},
      {R::time_limit, "TimeLimit", kEnded, "Failed", {"超过运行时间上限", "it ran longer than allowed"}},
      {R::stopped_by_user, "StoppedByUser", kEnded, "Stopped", {"已被用户停止", "stopped by a user"}},
      {R::node_failure, "NodeFailure", kEnded, "Failed", {"运行节点故障", "a machine was lost"}},
      {R::engine_error,
       "EngineError",
       kEnded,
       "Failed",
       {"运行引擎未能启动或丢失了任务", "the engine could not start it, or lost it"}},
      {R::evicted, "Evicted", kEnded, "Failed", {"被运行引擎驱逐", "the engine took its place away"}},
  }};
  return all;
}

std::string sentence(const std::string& words, const std::string& number, const std::string& rank,
                     const std::string& detail, const char* colon) {
  std::string out = words + number + rank;
  if (!detail.empty()) out += colon + detail;
  return out;
}

}  // namespace

std::string_view name(JobKind kind) {
  return kKindNames[static_cast<std::size_t>(kind)];
}
std::optional<JobKind> job_kind(std::string_view name) {
  return find<JobKind>(kKindNames, name);
}

std::string_view name(JobState state) {
  return kStateNames[static_cast<std::size_t>(state)];
}
std::optional<JobState> job_state(std::string_view name) {
  return find<JobState>(kStateNames, name);
}

bool may_move(JobState from, JobState to) {
  using S = JobState;
  switch (from) {
    case S::queued:
      return to == S::starting || to == S::failed || to == S::cancelled;
    case S::starting:
      return to == S::running || to == S::queued || to == S::stopping || to == S::succeeded ||
             to == S::failed;
    case S::running:
      return to == S::stopping || to == S::succeeded || to == S::failed || to == S::queued;
    case S::stopping:
      return to == S::cancelled || to == S::succeeded || to == S::failed;
    case S::succeeded:
    case S::failed:
    case S::cancelled:
      return to == S::queued;
  }
  return false;
}

bool is_ended(JobState state) {
  return state == JobState::succeeded || state == JobState::failed || state == JobState::cancelled;
}

bool is_active(JobState state) {
  return state == JobState::starting || state == JobState::running || state == JobState::stopping;
}

std::span<const ReasonInfo> reasons() {
  return table();
}
const ReasonInfo& info(Reason reason) {
  return table()[static_cast<std::size_t>(reason)];
}
std::string_view name(Reason reason) {
  return info(reason).name;
}

std::optional<Reason> reason_named(std::string_view name) {
  for (const auto& each : table())
    if (each.name == name) return each.reason;
  return std::nullopt;
}

JobState resting_state(Reason reason) {
  const auto status = info(reason).status;
  if (status == "Succeeded") return JobState::succeeded;
  if (status == "Failed") return JobState::failed;
  if (status == "Stopped") return JobState::cancelled;
  return JobState::queued;
}

bool Cause::operator==(const Cause& other) const {
  return reason == other.reason && number == other.number && rank == other.rank &&
         detail.zh == other.detail.zh && detail.en == other.detail.en;
}

std::string label(const Cause& cause) {
  std::string out(name(cause.reason));
  if (cause.reason == Reason::exit_code || cause.reason == Reason::signal)
    out += fmt::format(" {}", cause.number);
  return out;
}

Text describe(const Cause& cause) {
  if (cause.reason == Reason::none) return cause.detail;
  const Text& words = info(cause.reason).words;
  std::string number;
  if (cause.reason == Reason::exit_code || cause.reason == Reason::signal)
    number = fmt::format(" ({})", cause.number);
  std::string rank_zh, rank_en;
  if (cause.rank >= 0) {
    rank_zh = fmt::format("（节点 {}）", cause.rank);
    rank_en = fmt::format(" on rank {}", cause.rank);
  }
  return {sentence(words.zh, number, rank_zh, cause.detail.zh, "："),
          sentence(words.en, number, rank_en, cause.detail.en, ": ")};
}

std::string_view documented_status(JobState state) {
  return kStatuses[static_cast<std::size_t>(state)];
}

std::vector<JobState> states_of(std::string_view documented_status) {
  const auto same = [&](std::string_view word) {
    return std::equal(word.begin(), word.end(), documented_status.begin(), documented_status.end(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
  };
  std::vector<JobState> out;
  for (const JobState state : kJobStates)
    if (same(kStatuses[static_cast<std::size_t>(state)])) out.push_back(state);
  return out;
}

std::string_view name(GpuShare share) {
  return kShareNames[static_cast<std::size_t>(share)];
}
std::optional<GpuShare> gpu_share(std::string_view name) {
  return find<GpuShare>(kShareNames, name);
}
std::string_view name(NodeRole role) {
  return role == NodeRole::master ? "master" : "worker";
}

std::vector<RankRequest> expand_ranks(std::span<const RankGroup> groups) {
  std::vector<RankRequest> out;
  for (const NodeRole role : {NodeRole::master, NodeRole::worker}) {
    int index = 0;
    for (const auto& group : groups) {
      if (group.role != role) continue;
      for (int i = 0; i < group.count; ++i)
        out.push_back({static_cast<int>(out.size()), role, index++, group.each});
    }
  }
  return out;
}

ResourceTotal& ResourceTotal::operator+=(const ResourceTotal& other) {
  cpu += other.cpu;
  memory_gb += other.memory_gb;
  gpu += other.gpu;
  vgpu += other.vgpu;
  mig += other.mig;
  return *this;
}

ResourceTotal& ResourceTotal::operator-=(const ResourceTotal& other) {
  cpu -= other.cpu;
  memory_gb -= other.memory_gb;
  gpu -= other.gpu;
  vgpu -= other.vgpu;
  mig -= other.mig;
  return *this;
}

ResourceTotal total_of(const ResourceRequest& need, int times) {
  ResourceTotal out;
  out.cpu = std::int64_t{need.cpu} * times;
  out.memory_gb = std::int64_t{need.memory_gb} * times;
  auto& gpus = need.gpu.share == GpuShare::none   ? out.gpu
               : need.gpu.share == GpuShare::vgpu ? out.vgpu
                                                  : out.mig;
  gpus = std::int64_t{need.gpu.count} * times;
  return out;
}

ResourceTotal total_of(std::span<const RankGroup> groups) {
  ResourceTotal out;
  for (const auto& group : groups) out += total_of(group.each, group.count);
  return out;
}

std::optional<Duration> run_time(const Job& job, Time now) {
  if (!job.started_at) return std::nullopt;
  return std::max(Duration{0}, job.ended_at.value_or(now) - *job.started_at);
}

namespace {

/// An enum in a stored form: its word.
template <class Enum>
void word(Fields& f, std::string_view field, Enum& value, std::optional<Enum> (*parse)(std::string_view)) {
  std::string text(name(value));
  f.field(field, text);
  if (f.reading()) value = parse(text).value_or(value);
}

std::optional<NodeRole> node_role(std::string_view text) {
  return text == "master" ? NodeRole::master : NodeRole::worker;
}

constexpr std::array<std::string_view, 6> kSources{"none",          "user_root",       "public_root",
                                                   "model_version", "dataset_version", "job"};

}  // namespace

void fields(Fields& f, GpuRequest& gpu) {
  f.field("count", gpu.count);
  word(f, "share", gpu.share, gpu_share);
  f.field("memoryGb", gpu.memory_gb);
  f.field("cores", gpu.cores);
  f.field("mig", gpu.mig);
}

void fields(Fields& f, ResourceRequest& need) {
  f.field("cpu", need.cpu);
  f.field("memoryGb", need.memory_gb);
  f.field("gpu", need.gpu);
}

void fields(Fields& f, RankGroup& group) {
  word(f, "role", group.role, node_role);
  f.field("count", group.count);
  f.field("each", group.each);
}

void fields(Fields& f, HyperParameter& parameter) {
  f.field("name", parameter.name, {.form = Form::option});
  f.field("value", parameter.value, {.max_length = 65536});
  f.field("description", parameter.description, {.max_length = 65536});
}

void fields(Fields& f, EnvironmentVariable& variable) {
  f.field("name", variable.name, {.form = Form::variable});
  f.field("value", variable.value, {.max_length = 65536});
}

void fields(Fields& f, JobDirectory& directory) {
  std::string source(kSources[static_cast<std::size_t>(directory.source)]);
  f.field("source", source);
  if (f.reading()) directory.source = find<JobDirectory::Source>(kSources, source).value_or(directory.source);
  f.field("owner", directory.owner);
  f.field("path", directory.path, {.max_length = 4096});
}

void fields(Fields& f, JobSpec& spec) {
  word(f, "kind", spec.kind, job_kind);
  f.field("image", spec.image);
  f.field("imageId", spec.image_id);
  f.field("framework", spec.framework);
  f.field("command", spec.command, {.max_length = 65536});
  f.field("algorithmId", spec.algorithm_id);
  f.field("argv", spec.argv, {.max_length = 65536});
  f.field("strategy", spec.strategy);
  f.field("commonParameters", spec.common_parameters);
  f.field("tuningParameters", spec.tuning_parameters);
  f.field("environment", spec.environment);
  f.field("work", spec.work);
  f.field("model", spec.model);
  f.field("input", spec.input);
  f.field("output", spec.output);
  f.field("checkpoint", spec.checkpoint);
  f.field("modelVersionId", spec.model_version_id);
  f.field("datasetVersionId", spec.dataset_version_id);
  f.field("groupId", spec.group_id);
  f.field("groups", spec.groups);
  f.field("nodes", spec.nodes);
  f.field("priority", spec.priority);
  f.field("urgent", spec.urgent);
  f.field("timeLimitS", spec.time_limit_s);
  f.field("rdma", spec.rdma);
  f.field("rdmaResource", spec.rdma_resource);
}

}  // namespace lathe
