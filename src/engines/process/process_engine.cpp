#include "engines/process/process_engine.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/directory.h"
#include "base/log.h"
#include "engines/gpu/nvml.h"
#include "engines/process/cgroup.h"
#include "engines/process/end_text.h"
#include "engines/process/probe.h"
#include "engines/process/record.h"
#include "engines/process/spawn.h"
#include "engines/process/watcher.h"

namespace lathe::engines {

namespace {

Fd open_process(std::int64_t pid) {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
}

bool has_ended(const Fd& process) {
  pollfd wait{process.get(), POLLIN, 0};
  return !process || (::poll(&wait, 1, 0) == 1);
}

/// Waits a moment for a process that is dying. Should the number be another's by now, that costs the moment.
void await_end(std::int64_t pid) {
  const Fd process = open_process(pid);
  pollfd wait{process.get(), POLLIN, 0};
  if (process) ::poll(&wait, 1, 500);
}

std::vector<std::string> entries(int folder) {
  std::vector<std::string> out;
  const int copy = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* list = copy < 0 ? nullptr : ::fdopendir(copy);
  if (!list) return out;
  while (const dirent* entry = ::readdir(list)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") out.push_back(name);
  }
  ::closedir(list);
  return out;
}

/// The launch record goes first: a folder with one and without a claim would be run.
void erase(int parent, const std::string& name) {
  if (auto folder = RunFolder::open(parent, name); folder.ok()) {
    ::unlinkat(folder->fd(), RunFolder::kLaunch, 0);
    for (const auto& file : entries(folder->fd())) ::unlinkat(folder->fd(), file.c_str(), 0);
  }
  ::unlinkat(parent, name.c_str(), AT_REMOVEDIR);
}

Error unknown(const std::string& run_id) {
  return not_found({"运行", "run"}, run_id);
}

bool is_plain(const std::string& run_id) {
  return !run_id.empty() && run_id.find('/') == std::string::npos && run_id[0] != '.';
}

}  // namespace

struct ProcessEngine::State {
  explicit State(Options given) : options(std::move(given)) {
    options.state_dir = std::filesystem::absolute(options.state_dir);
    auto directory = Directory::create(options.state_dir);
    if (!directory.ok()) throw std::runtime_error(directory.error().describe(Language::en));
    root = std::move(*directory);
    auto probed = probe_namespaces();
    if (probed.ok()) {
      namespaces = *probed;
      options.rules.user_namespace = namespaces.user_namespace;
    } else {
      unusable = std::move(probed).error().message;
    }
    cgroups = options.cgroups ? *options.cgroups : CgroupTree::discover();
    if (mps_is_running()) options.rules.mps_directory = mps_directory();
    for (const auto& run_id : entries(root.fd())) adopt(run_id);
  }

  std::string path(const std::string& run_id) const { return options.state_dir + "/" + run_id; }
  Result<RunFolder> folder(const std::string& run_id) const {
    if (!is_plain(run_id)) return unknown(run_id);
    return RunFolder::open(root.fd(), run_id);
  }

  /// Takes up what an earlier engine left.
  void adopt(const std::string& run_id) {
    auto opened = folder(run_id);
    if (!opened.ok()) return;
    if (!opened->has(RunFolder::kLaunch)) return erase(root.fd(), run_id);
    watcher.watch_folder(run_id, path(run_id));
    if (opened->has(RunFolder::kClaim)) return watch_supervisor(run_id, *opened);
    // It was accepted, and nobody is known to run it: of two supervisors the one that claims it does.
    if (auto spawned = supervise(run_id); !spawned.ok())
      log::error("run {}: {}", run_id, spawned.error().describe(Language::en));
  }

  void watch_supervisor(const std::string& run_id, const RunFolder& run) {
    auto claim = run.read<ClaimRecord>(RunFolder::kClaim);
    if (!claim.ok() || !*claim || (*claim)->pid <= 0 || !run.locked()) return;
    Fd process = open_process((*claim)->pid);
    // Still locked: so its holder lived when the descriptor was made, and the number was not another's.
    if (!run.locked()) return;
    watcher.watch_process(run_id, std::move(process));
    const std::lock_guard guard(mutex);
    watched.insert(run_id);
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
      if (has_gpu_share(rank.resources) && options.rules.mps_directory.empty())
        return Error{Code::failed_precondition,
                     {"本机没有运行 CUDA MPS，无法限制 GPU 份额",
                      "no CUDA MPS daemon runs here to hold a job to its share of a GPU"}};
    return {};
  }

  Result<void> prepare_folder(const LaunchPlan& plan) {
    if (::mkdirat(root.fd(), plan.run_id.c_str(), 0700) != 0 && errno != EEXIST)
      return system_error("mkdir " + path(plan.run_id), errno);
    TRY(Directory::create(plan.log_dir, 0755));
    const RunFolder run = TRY(folder(plan.run_id));
    const Fd lock(::openat(run.fd(), RunFolder::kLock, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock) return system_error("open lock", errno);
    return run.write(
        RunFolder::kLaunch,
        LaunchRecord{plan, options.rules, cgroups.bases(), !cgroups.has("memory"), !cgroups.has("pids")},
        Durable::no);
  }

  Result<void> supervise(const std::string& run_id) {
    std::vector<std::string> argv = options.supervisor;
    argv.push_back(run_id);
    const pid_t pid = TRY(spawn_supervisor(std::move(argv), path(run_id)));
    watcher.watch_process(run_id, open_process(pid));
    const std::lock_guard guard(mutex);
    watched.insert(run_id);
    launching[run_id] = open_process(pid);
    return {};
  }

  void forget(const std::string& run_id) {
    watcher.forget(run_id);
    const std::lock_guard guard(mutex);
    launching.erase(run_id);
    watched.erase(run_id);
  }

  /// Is a supervisor on its way that has not claimed its run yet?
  bool is_launching(const std::string& run_id) {
    const std::lock_guard guard(mutex);
    if (starting.contains(run_id)) return true;
    const auto it = launching.find(run_id);
    return it != launching.end() && !has_ended(it->second);
  }

  void launched(const std::string& run_id, const RunFolder& run) {
    bool watch;
    {
      const std::lock_guard guard(mutex);
      launching.erase(run_id);
      watch = !watched.contains(run_id);
    }
    if (watch) watch_supervisor(run_id, run);
  }

  /// Ends an unfinished run whose supervisor is gone. The ranks' first processes hold the lock too, so that
  /// whoever gets it knows that they are dead or dying.
  Result<void> settle(const std::string& run_id, const RunFolder& run, const LaunchRecord& launch) {
    const bool launching_now = is_launching(run_id);
    auto claim = TRY(run.read<ClaimRecord>(RunFolder::kClaim));
    if (!claim && launching_now) return {};
    if (claim) launched(run_id, run);
    // Its processes die with a supervisor that was killed, but take a moment.
    const bool dying = claim && claim->pid > 0 && has_ended(open_process(claim->pid));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(dying ? 1 : 0);
    auto lock = run.lock();
    while (!lock && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      lock = run.lock();
    }
    if (!lock) return {};
    if (TRY(run.write_once(RunFolder::kClaim, ClaimRecord{}, Durable::yes)))
      return write_missing_ends(run, launch, EndCause::launch_failed);  // it died before it could claim
    return write_missing_ends(run, launch, EndCause::lost);
  }

  /// Everything the folder says about the ranks, at one moment.
  struct Records {
    std::vector<std::optional<StartRecord>> starts;
    std::vector<std::optional<EndRecord>> ends;
    bool complete() const {
      return std::all_of(ends.begin(), ends.end(), [](const auto& end) { return end.has_value(); });
    }
  };
  static Result<Records> read_records(const RunFolder& run, std::size_t ranks) {
    Records out;
    for (std::size_t i = 0; i < ranks; ++i) {
      out.starts.push_back(TRY(run.read<StartRecord>(RunFolder::start_name(i))));
      out.ends.push_back(TRY(run.read<EndRecord>(RunFolder::end_name(i))));
    }
    return out;
  }

  /// Writes the ends that a supervisor owed and can no longer write, with the lock held.
  Result<void> write_missing_ends(const RunFolder& run, const LaunchRecord& launch, EndCause cause) {
    Records records = TRY(read_records(run, launch.plan.ranks.size()));
    for (std::size_t i = 0; i < records.ends.size(); ++i) {
      if (records.ends[i]) continue;
      const Cgroup group = rank_cgroup(launch, i);
      EndRecord record;
      record.order = static_cast<std::int64_t>(i);
      record.end.cause = cause;
      record.end.at = clock.now();
      record.end.cpu_seconds = group.cpu_seconds().value_or(0);
      record.end.memory_peak_bytes = group.memory_peak();
      record.end.message = end_text(record.end, launch.plan, std::nullopt, std::nullopt);
      if (records.starts[i]) await_end(records.starts[i]->pid);
      if (!group.destroy())
        log::warning("run {}: processes of a lost rank would not die", launch.plan.run_id);
      TRY(run.write(RunFolder::end_name(i), record, Durable::yes));
    }
    return {};
  }

  Result<LaunchRecord> launch_record(const RunFolder& run, const std::string& run_id) {
    auto launch = TRY(run.read<LaunchRecord>(RunFolder::kLaunch));
    if (!launch) return unknown(run_id);
    return std::move(*launch);
  }

  Options options;
  Directory root;
  NamespaceProbe namespaces;
  std::optional<Text> unusable;
  CgroupTree cgroups;
  SystemClock clock;
  std::mutex mutex;
  std::set<std::string> starting;       ///< start() is under way in this process
  std::set<std::string> watched;        ///< the watcher has the supervisor
  std::map<std::string, Fd> launching;  ///< supervisors that were started and have not been seen to claim
  Watcher watcher;                      // last: its thread ends first
};

ProcessEngine::ProcessEngine(Options options) : state_(std::make_unique<State>(std::move(options))) {}
ProcessEngine::~ProcessEngine() = default;

void ProcessEngine::on_change(std::function<void(const std::string&)> callback) {
  state_->watcher.on_change(std::move(callback));
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
  out.gpu_shares = !state_->options.rules.mps_directory.empty();
  const bool has_gpus = ::access("/dev/nvidiactl", F_OK) == 0;
  lacks(out.gpu_shares || !has_gpus, "没有 CUDA MPS：GPU 只能整卡或按 MIG 分配",
        "no CUDA MPS: GPUs are given out whole or as MIG slices only");
  return out;
}

Result<void> ProcessEngine::start(const LaunchPlan& plan) {
  State& s = *state_;
  TRY(s.admit(plan));
  {
    const std::lock_guard guard(s.mutex);
    if (!s.starting.insert(plan.run_id).second) return {};  // another thread is at it
  }
  struct Done {
    State& s;
    const std::string& run_id;
    ~Done() {
      const std::lock_guard guard(s.mutex);
      s.starting.erase(run_id);
    }
  } done{s, plan.run_id};
  if (auto run = s.folder(plan.run_id); run.ok() && (run->has(RunFolder::kClaim) || run->locked())) return {};
  TRY(s.prepare_folder(plan));
  s.watcher.watch_folder(plan.run_id, s.path(plan.run_id));
  return s.supervise(plan.run_id);
}

Result<RunStatus> ProcessEngine::inspect(const std::string& run_id) {
  State& s = *state_;
  const RunFolder run = TRY(s.folder(run_id));
  const LaunchRecord launch = TRY(s.launch_record(run, run_id));
  const std::size_t count = launch.plan.ranks.size();
  auto records = TRY(State::read_records(run, count));
  if (!records.complete()) {
    TRY(s.settle(run_id, run, launch));
    records = TRY(State::read_records(run, count));
  }
  RunStatus status;
  status.run_id = run_id;
  bool started = true;
  for (std::size_t i = 0; i < count; ++i) {
    RankStatus rank;
    if (const auto& start = records.starts[i]) {
      rank.state = RankState::running;
      rank.pid = start->pid;
      rank.started_at = start->at;
      status.started_at = status.started_at ? std::min(*status.started_at, start->at) : start->at;
    } else {
      started = false;
    }
    if (const auto& end = records.ends[i]) {
      rank.state = RankState::ended;
      rank.end = end->end;
    }
    status.ranks.push_back(std::move(rank));
  }
  if (!records.complete()) {
    status.state = started ? RankState::running : RankState::starting;
    return status;
  }
  status.state = RankState::ended;
  auto weight = [&](std::size_t i) {  // the least is the verdict
    const auto& end = *records.ends[i];
    const int blame = end.end.success() ? 2 : end.end.cause == EndCause::sibling_failed ? 1 : 0;
    return std::pair(blame, end.end.success() ? static_cast<std::int64_t>(i) : end.order);
  };
  for (std::size_t i = 0; i < count; ++i) {
    if (weight(i) < weight(status.verdict_rank)) status.verdict_rank = i;
    const Time at = records.ends[i]->end.at;
    status.ended_at = status.ended_at ? std::max(*status.ended_at, at) : at;
  }
  return status;
}

Result<void> ProcessEngine::stop(const std::string& run_id, std::optional<Duration> grace) {
  State& s = *state_;
  const RunFolder run = TRY(s.folder(run_id));
  const LaunchRecord launch = TRY(s.launch_record(run, run_id));
  StopRecord request;
  if (grace) request.grace_ms = grace->count();
  TRY(run.write(RunFolder::kStop, request, Durable::yes));
  if (const auto lock = run.lock()) {
    // Nobody runs it: it ended, was lost, or its supervisor is not up yet and will find it claimed.
    const bool never_ran = TRY(run.write_once(RunFolder::kClaim, ClaimRecord{}, Durable::yes));
    TRY(s.write_missing_ends(run, launch, never_ran ? EndCause::stopped : EndCause::lost));
    return {};
  }
  // Without a reader yet, the supervisor looks for the request when it opens its end.
  const Fd control(::openat(run.fd(), RunFolder::kControl, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (control) (void)!::write(control.get(), "s", 1);
  return {};
}

Result<void> ProcessEngine::remove(const std::string& run_id) {
  State& s = *state_;
  auto run = s.folder(run_id);
  if (!run.ok()) return {};
  auto status = inspect(run_id);
  if (status.ok() && status->state != RankState::ended)
    return Error{Code::failed_precondition, {"尚未结束：" + run_id, "has not ended: " + run_id}};
  if (status.ok()) {
    const LaunchRecord launch = TRY(s.launch_record(*run, run_id));
    for (std::size_t i = 0; i < launch.plan.ranks.size(); ++i) rank_cgroup(launch, i).destroy();
  }
  s.forget(run_id);
  erase(s.root.fd(), run_id);
  return {};
}

Result<std::vector<std::string>> ProcessEngine::list() {
  std::vector<std::string> out;
  for (const auto& run_id : entries(state_->root.fd()))
    if (auto run = state_->folder(run_id); run.ok() && run->has(RunFolder::kLaunch)) out.push_back(run_id);
  std::sort(out.begin(), out.end());
  return out;
}

Result<Usage> ProcessEngine::usage(const std::string& run_id) {
  State& s = *state_;
  const RunFolder run = TRY(s.folder(run_id));
  const LaunchRecord launch = TRY(s.launch_record(run, run_id));
  Usage out;
  for (std::size_t i = 0; i < launch.plan.ranks.size(); ++i) {
    if (const auto end = TRY(run.read<EndRecord>(RunFolder::end_name(i)))) {
      out.cpu_seconds += end->end.cpu_seconds;
      out.memory_peak_bytes += end->end.memory_peak_bytes;
      continue;
    }
    const Cgroup group = rank_cgroup(launch, i);
    out.cpu_seconds += group.cpu_seconds().value_or(0);
    out.memory_bytes += group.memory();
    out.memory_peak_bytes += group.memory_peak();
  }
  return out;
}

}  // namespace lathe::engines
