#include "engines/docker/docker_engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/atomic_file.h"
#include "base/log.h"
#include "engines/docker/container_spec.h"
#include "engines/docker/daemon.h"
#include "engines/docker/first_program.h"
#include "engines/docker/image_loader.h"
#include "engines/gpu/nvml.h"
#include "engines/supervised/cgroup.h"
#include "engines/supervised/environment.h"
#include "engines/supervised/runs.h"

namespace lathe::engines {

namespace {

constexpr const char* kFirstFile = ".first";
constexpr std::chrono::seconds kLateContainers{60};  ///< by then a daemon has done what a dead asked for
constexpr std::chrono::seconds kBetweenSweeps{1};

/// Written once for each build of this program: containers that are just being started mount it.
Result<void> keep_first_program(int folder) {
  const auto there = read_whole_file(folder, kFirstFile, first_program().size());
  if (there.ok() && *there == first_program()) return {};
  return replace_file(folder, kFirstFile, first_program(), Durable::no, 0755);
}

Error unusable(std::string zh, std::string en) {
  return {Code::failed_precondition, {std::move(zh), std::move(en)}};
}

Error rootless_error() {
  return unusable(
      "容器引擎以非 root 方式运行或映射了用户，作业的文件将不属于其用户：请使用 root 的 Docker 或 Podman",
      "the container daemon is rootless or remaps users, so that a job's files would not be its "
      "user's: use Docker's or Podman's system service");
}

}  // namespace

struct DockerEngine::State {
  explicit State(Options given)
      : options(std::move(given)),
        daemon(options.socket),
        runs({.state_dir = options.state_dir,
              .supervisor = options.supervisor,
              .usage = usage,
              .clear = [this](const LaunchRecord& launch, std::size_t rank) { return clear(launch, rank); },
              .resume = [this](const LaunchRecord& launch) { return resume(launch); },
              .abandoned = [this](const LaunchRecord& launch) { want_sweeps(&launch); }}),
        loader(daemon, options.find_image, options.retry, options.image_prefix, options.unload_interval) {
    const Fd folder(::open(runs.state_dir().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto kept = keep_first_program(folder.get());
    if (!kept.ok()) throw std::runtime_error(kept.error().describe(Language::en));
    runs.adopt();
    sweeper = std::thread([this] { sweep(); });
  }
  ~State() {
    {
      const std::lock_guard guard(mutex);
      ending = true;
    }
    to_sweep.notify_all();
    sweeper.join();
  }

  static Usage usage(const LaunchRecord&, std::size_t, const std::optional<StartRecord>& start) {
    if (!start || start->pid <= 0) return {};
    const Cgroup group = Cgroup::of_process(start->pid);
    return {group.cpu_seconds().value_or(0), group.memory(), group.memory_peak()};
  }

  /// A container of an ended run does nothing any more: it may wait for its daemon.
  Result<void> clear(const LaunchRecord& launch, std::size_t rank) {
    auto removed = daemon.remove(rank_name(launch, rank));
    if (removed.ok() || removed.error().code != Code::unavailable) return removed;
    want_sweeps();
    return {};
  }

  /// For a while from now; also for what may come of `lost`.
  void want_sweeps(const LaunchRecord* lost = nullptr) {
    {
      const std::lock_guard guard(mutex);
      for (std::size_t rank = 0; lost && rank < lost->plan.ranks.size(); ++rank)
        late[rank_name(*lost, rank)] = lost->plan.run_id;
      sweep_until = std::chrono::steady_clock::now() + kLateContainers;
    }
    to_sweep.notify_all();
  }

  LaunchRecord record_of(const LaunchPlan& plan, std::string image) const {
    LaunchRecord out{.plan = plan};
    out.container = ContainerLaunch{.socket = options.socket,
                                    .image = std::move(image),
                                    .first = runs.state_dir() + "/" + kFirstFile,
                                    .gpus = options.gpus};
    out.rules.mps_directory = mps_directory();
    return out;
  }

  Result<void> admit(const LaunchPlan& plan) {
    TRY(check(plan));
    if (plan.image.empty() || plan.image == "host")
      return invalid_field(
          "image", {"容器引擎不能运行镜像 host", "the docker engine does not run the image \"host\""});
    for (const auto& rank : plan.ranks)
      if (has_gpu_share(rank.resources) && !mps_is_running())
        return unusable("本机没有运行 CUDA MPS，无法限制 GPU 份额",
                        "no CUDA MPS daemon runs here to hold a job to its share of a GPU");
    const auto about = TRY(this->about());
    if (about.rootless || about.remapped) return rootless_error();
    return {};
  }

  /// Asked once the daemon has answered once; a daemon is not exchanged for another kind under way.
  Result<Daemon::About> about() {
    {
      const std::lock_guard guard(mutex);
      if (known) return *known;
    }
    auto found = TRY(daemon.about());
    const std::lock_guard guard(mutex);
    known = found;
    return found;
  }

  bool resume(const LaunchRecord& launch) {
    fetch(launch);
    return false;
  }

  /// Has the image brought, then launches.
  void fetch(const LaunchRecord& launch) {
    loader.want(launch.plan.image, [this, launch](const ImageLoader::Outcome& outcome) {
      const std::string& run_id = launch.plan.run_id;
      if (!runs.waiting(run_id)) return;  // stopped
      if (outcome.error)
        return runs.give_up(run_id,
                            {outcome.error->describe(Language::zh), outcome.error->describe(Language::en)});
      runs.launch(run_id);
    });
  }

  /// Removes containers of runs that nobody knows any more: their daemon was away when they were to be
  /// removed, or made them after that, for a supervisor that had died. At the start, and for a while after
  /// either has happened; at least until the daemon has answered once.
  void sweep() {
    std::unique_lock lock(mutex);
    bool owed = false;
    while (!ending) {
      if (!owed && std::chrono::steady_clock::now() >= sweep_until) {
        late.clear();
        to_sweep.wait(lock, [&] { return ending || std::chrono::steady_clock::now() < sweep_until; });
        continue;
      }
      const auto expected = late;
      lock.unlock();
      remove_late(expected);
      owed = !sweep_once().ok();
      lock.lock();
      to_sweep.wait_for(lock, kBetweenSweeps, [&] { return ending; });
    }
  }

  bool is_known(const std::string& run_id) const {
    return ::access((runs.state_dir() + "/" + run_id).c_str(), F_OK) == 0;
  }

  /// By their names: where a container was removed while it was being made, Podman keeps half of it, and
  /// lists none until that is gone, too.
  void remove_late(const std::map<std::string, std::string>& expected) const {
    for (const auto& [name, run_id] : expected)
      if (!is_known(run_id)) (void)daemon.remove(name).ok();
  }

  Result<void> sweep_once() const {
    const std::string prefix = "lathe-" + runs.owner() + "-";
    for (const auto& each : TRY(daemon.list(kOwnerLabel, runs.owner()))) {
      const auto last = each.name.rfind('-');
      if (!each.name.starts_with(prefix) || last <= prefix.size()) continue;
      const std::string run_id = each.name.substr(prefix.size(), last - prefix.size());
      if (is_known(run_id)) continue;
      log::info("container {} belongs to no run: it is removed", each.name);
      TRY(daemon.remove(each.id));
    }
    return {};
  }

  Options options;
  const Daemon daemon;
  SupervisedRuns runs;
  mutable std::mutex mutex;
  std::optional<Daemon::About> known;
  std::map<std::string, std::string> late;  ///< containers that may come yet, and their runs
  std::condition_variable to_sweep;
  bool ending = false;
  std::chrono::steady_clock::time_point sweep_until = std::chrono::steady_clock::now() + kLateContainers;
  ImageLoader loader;
  std::thread sweeper;
};

DockerEngine::DockerEngine(Options options) : state_(std::make_unique<State>(std::move(options))) {}
DockerEngine::~DockerEngine() = default;

void DockerEngine::on_change(std::function<void(const std::string&)> callback) {
  state_->runs.on_change(std::move(callback));
}

Capabilities DockerEngine::capabilities() const {
  Capabilities out;
  const auto about = state_->about();
  if (!about.ok()) {
    out.usable = false;
    out.shortcomings.push_back(about.error().message);
    return out;
  }
  if (about->rootless || about->remapped) {
    out.usable = false;
    out.shortcomings.push_back(rootless_error().message);
    return out;
  }
  out.isolates_files = out.isolates_processes = out.isolates_network = out.runs_images = true;
  out.limits_memory = about->limits_memory;
  out.limits_cpu = about->limits_cpu;
  out.limits_pids = about->limits_pids;
  out.gpu_shares = mps_is_running();
  auto lacks = [&](bool has, const char* zh, const char* en) {
    if (!has) out.shortcomings.push_back({zh, en});
  };
  lacks(out.limits_memory, "容器引擎不能限制作业的内存", "the container daemon cannot limit a job's memory");
  lacks(out.limits_cpu, "容器引擎不能限制作业的 CPU", "the container daemon cannot limit a job's CPU time");
  lacks(out.limits_pids, "容器引擎不能限制作业的进程数",
        "the container daemon cannot limit a job's number of processes");
  lacks(about->live_restore, "Docker 没有开启 live-restore：重启它会终止正在运行的作业",
        "Docker runs without live-restore: to restart it ends the jobs that run in containers");
  return out;
}

Result<void> DockerEngine::start(const LaunchPlan& plan) {
  State& s = *state_;
  TRY(check(plan));
  if (s.runs.known(plan.run_id)) return {};
  TRY(s.admit(plan));
  if (auto id = TRY(s.loader.look(plan.image))) return s.runs.start(s.record_of(plan, *id));
  const LaunchRecord record = s.record_of(plan, TRY(s.options.find_image(plan.image)).id);
  TRY(s.runs.accept(record, {"正在把镜像载入容器引擎", "loading the image into the container daemon"}));
  s.fetch(record);
  return {};
}

Result<RunStatus> DockerEngine::inspect(const std::string& run_id) {
  return state_->runs.inspect(run_id);
}
Result<void> DockerEngine::stop(const std::string& run_id, std::optional<Duration> grace) {
  return state_->runs.stop(run_id, grace);
}
Result<void> DockerEngine::remove(const std::string& run_id) {
  return state_->runs.remove(run_id);
}
Result<std::vector<std::string>> DockerEngine::list() {
  return state_->runs.list();
}
Result<Usage> DockerEngine::usage(const std::string& run_id) {
  return state_->runs.usage(run_id);
}

std::string find_daemon() {
  for (const char* path : {"/var/run/docker.sock", "/run/podman/podman.sock"}) {
    struct stat info {};
    if (::stat(path, &info) == 0 && S_ISSOCK(info.st_mode) && ::access(path, R_OK | W_OK) == 0) return path;
  }
  return {};
}

}  // namespace lathe::engines
