#include "engines/process/process_engine.h"
#include "engines/supervised/environment.h"

#include <unistd.h>

#include "base/log.h"
#include "engines/gpu/nvml.h"
#include "engines/process/probe.h"
#include "engines/supervised/cgroup.h"
#include "engines/supervised/record.h"
#include "engines/supervised/runs.h"

namespace lathe::engines {

struct ProcessEngine::State {
  explicit State(Options given)
      : options(std::move(given)),
        runs({.state_dir = options.state_dir,
              .supervisor = options.supervisor,
              .usage = usage,
              .clear = clear}) {
    auto probed = probe_namespaces();
    if (probed.ok()) {
      namespaces = *probed;
      options.rules.user_namespace = namespaces.user_namespace;
    } else {
      unusable = std::move(probed).error().message;
    }
    options.rules.mps_directory = mps_directory();
    cgroups = options.cgroups ? *options.cgroups : CgroupTree::discover();
    runs.adopt();
  }

  static Usage usage(const LaunchRecord& launch, std::size_t rank, const std::optional<StartRecord>&) {
    const Cgroup group = rank_cgroup(launch, rank);
    return {group.cpu_seconds().value_or(0), group.memory(), group.memory_peak()};
  }

  static Result<void> clear(const LaunchRecord& launch, std::size_t rank) {
    if (!rank_cgroup(launch, rank).destroy())
      log::warning("run {}: processes of rank {} would not die", launch.plan.run_id, rank);
    return {};
  }

  Result<void> admit(const LaunchPlan& plan) const {
    TRY(check(plan));
    if (unusable) return Error{Code::failed_precondition, *unusable};
    if (plan.image != "host")
      return invalid_field("image",
                           {"进程引擎只能使用镜像 host", "the process engine runs the image \"host\" only"});
    if (plan.network == Network::none && !namespaces.network)
      return Error{Code::failed_precondition,
                   {"本机无法隔离网络", "this machine does not let the server isolate the network"}};
    for (const auto& rank : plan.ranks)
      if (has_gpu_share(rank.resources) && !mps_is_running())
        return Error{Code::failed_precondition,
                     {"本机没有运行 CUDA MPS，无法限制 GPU 份额",
                      "no CUDA MPS daemon runs here to hold a job to its share of a GPU"}};
    return {};
  }

  Options options;
  NamespaceProbe namespaces;
  std::optional<Text> unusable;
  CgroupTree cgroups;
  SupervisedRuns runs;  // last: its thread ends first
};

ProcessEngine::ProcessEngine(Options options) : state_(std::make_unique<State>(std::move(options))) {}
ProcessEngine::~ProcessEngine() = default;

void ProcessEngine::on_change(std::function<void(const std::string&)> callback) {
  state_->runs.on_change(std::move(callback));
}

Capabilities ProcessEngine::capabilities() const {
  Capabilities out;
  if (state_->unusable) {
    out.usable = false;
    out.shortcomings.push_back(*state_->unusable);
    return out;
  }
  out.isolates_files = out.isolates_processes = true;
  out.isolates_network = state_->namespaces.network;
  out.limits_memory = state_->cgroups.has("memory");
  out.limits_cpu = state_->cgroups.has("cpu");
  out.limits_pids = state_->cgroups.has("pids");
  auto lacks = [&](bool has, const char* zh, const char* en) {
    if (!has) out.shortcomings.push_back({zh, en});
  };
  lacks(out.limits_memory, "不能限制作业的总内存：没有可写的 memory cgroup，只限制每个进程的数据段",
        "a job's memory is limited per process only, not as a whole: no writable memory cgroup");
  lacks(out.limits_cpu, "不能限制作业的 CPU：没有可写的 cpu cgroup",
        "a job's CPU time is not limited: no writable cpu cgroup");
  lacks(out.limits_pids, "不能限制作业的进程数：没有可写的 pids cgroup",
        "a job's number of processes is not limited: no writable pids cgroup");
  lacks(out.isolates_network, "不能隔离作业的网络", "a job's network cannot be isolated");
  lacks(!state_->namespaces.user_namespace, "服务器不是 root：作业以服务器自己的用户运行",
        "the server is not root: jobs run as the server's own user");
  out.gpu_shares = mps_is_running();
  const bool has_gpus = ::access("/dev/nvidiactl", F_OK) == 0;
  lacks(out.gpu_shares || !has_gpus, "没有 CUDA MPS：GPU 只能整卡或按 MIG 分配",
        "no CUDA MPS: GPUs are given out whole or as MIG slices only");
  return out;
}

Result<void> ProcessEngine::start(const LaunchPlan& plan) {
  const State& s = *state_;
  TRY(s.admit(plan));
  return state_->runs.start({.plan = plan,
                             .rules = s.options.rules,
                             .cgroups = s.cgroups.bases(),
                             .memory_by_process = !s.cgroups.has("memory"),
                             .pids_by_process = !s.cgroups.has("pids")});
}

Result<RunStatus> ProcessEngine::inspect(const std::string& run_id) {
  return state_->runs.inspect(run_id);
}
Result<void> ProcessEngine::stop(const std::string& run_id, std::optional<Duration> grace) {
  return state_->runs.stop(run_id, grace);
}
Result<void> ProcessEngine::remove(const std::string& run_id) {
  return state_->runs.remove(run_id);
}
Result<std::vector<std::string>> ProcessEngine::list() {
  return state_->runs.list();
}
Result<Usage> ProcessEngine::usage(const std::string& run_id) {
  return state_->runs.usage(run_id);
}

}  // namespace lathe::engines
