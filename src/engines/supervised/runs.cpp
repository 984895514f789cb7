#include "engines/supervised/runs.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/sha.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "base/log.h"
#include "engines/supervised/end_text.h"
#include "engines/supervised/spawn.h"

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

Result<LaunchRecord> launch_record(const RunFolder& run, const std::string& run_id) {
  auto launch = TRY(run.read<LaunchRecord>(RunFolder::kLaunch));
  if (!launch) return unknown(run_id);
  return std::move(*launch);
}

bool is_plain(const std::string& run_id) {
  return !run_id.empty() && run_id.find('/') == std::string::npos && run_id[0] != '.';
}

}  // namespace

/// While it lives, start() of the run is under way; it has it if nobody else was at it.
class SupervisedRuns::Starting {
 public:
  Starting(SupervisedRuns& runs, const std::string& run_id) : runs_(runs), run_id_(run_id) {
    const std::lock_guard guard(runs_.mutex_);
    mine_ = !runs_.waiting_.contains(run_id) && runs_.starting_.insert(run_id).second;
  }
  ~Starting() {
    if (!mine_) return;
    const std::lock_guard guard(runs_.mutex_);
    runs_.starting_.erase(run_id_);
  }
  Starting(const Starting&) = delete;
  Starting& operator=(const Starting&) = delete;
  bool mine() const { return mine_; }

 private:
  SupervisedRuns& runs_;
  const std::string& run_id_;
  bool mine_ = false;
};

std::string owner_of(const std::string& state_dir) {
  const std::string path = std::filesystem::weakly_canonical(std::filesystem::absolute(state_dir));
  unsigned char digest[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char*>(path.data()), path.size(), digest);
  std::string out;
  for (int i = 0; i < 5; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

SupervisedRuns::SupervisedRuns(Options options) : options_(std::move(options)) {
  options_.state_dir = std::filesystem::absolute(options_.state_dir);
  auto directory = Directory::create(options_.state_dir);
  if (!directory.ok()) throw std::runtime_error(directory.error().describe(Language::en));
  root_ = std::move(*directory);
  owner_ = owner_of(options_.state_dir);
}

void SupervisedRuns::adopt() {
  for (const auto& run_id : entries(root_.fd())) adopt(run_id);
}

Result<RunFolder> SupervisedRuns::folder(const std::string& run_id) const {
  if (!is_plain(run_id)) return unknown(run_id);
  return RunFolder::open(root_.fd(), run_id);
}

void SupervisedRuns::adopt(const std::string& run_id) {
  auto opened = folder(run_id);
  if (!opened.ok()) return;
  if (!opened->has(RunFolder::kLaunch)) return erase(root_.fd(), run_id);
  watcher_.watch_folder(run_id, path(run_id));
  if (opened->has(RunFolder::kClaim)) return watch_supervisor(run_id, *opened);
  // It was accepted, and nobody is known to run it: of two supervisors the one that claims it does.
  const auto record = opened->read<LaunchRecord>(RunFolder::kLaunch);
  const bool readable = record.ok() && record->has_value();
  if (readable && (*record)->owner != owner_)
    return give_up(run_id, {"此运行由使用另一目录的服务器接受，不在这里启动",
                            "was accepted by a server on another directory, and is not started on this one"});
  if (options_.resume && readable && !opened->locked()) {
    {
      const std::lock_guard guard(mutex_);
      waiting_[run_id];
    }
    if (!options_.resume(**record)) return;
  }
  launch(run_id);
}

bool SupervisedRuns::known(const std::string& run_id) {
  {
    const std::lock_guard guard(mutex_);
    if (starting_.contains(run_id) || waiting_.contains(run_id)) return true;
  }
  auto run = folder(run_id);
  return run.ok() && (run->has(RunFolder::kClaim) || run->locked());
}

Result<void> SupervisedRuns::start(const LaunchRecord& record) {
  const std::string& run_id = record.plan.run_id;
  const Starting starting(*this, run_id);
  if (!starting.mine()) return {};  // another thread is at it
  if (auto run = folder(run_id); run.ok() && (run->has(RunFolder::kClaim) || run->locked())) return {};
  TRY(write_down(record));
  return supervise(run_id);
}

Result<void> SupervisedRuns::accept(const LaunchRecord& record, Text detail) {
  const std::string& run_id = record.plan.run_id;
  const Starting starting(*this, run_id);
  if (!starting.mine()) return {};
  if (auto run = folder(run_id); run.ok() && (run->has(RunFolder::kClaim) || run->locked())) return {};
  TRY(write_down(record));
  const std::lock_guard guard(mutex_);
  waiting_[run_id] = std::move(detail);
  return {};
}

void SupervisedRuns::launch(const std::string& run_id) {
  auto spawned = supervise(run_id);
  if (!spawned.ok()) {
    log::error("run {}: {}", run_id, spawned.error().describe(Language::en));
    return give_up(run_id, spawned.error().message);
  }
  const std::lock_guard guard(mutex_);
  waiting_.erase(run_id);
}

void SupervisedRuns::give_up(const std::string& run_id, const Text& why) {
  {
    const std::lock_guard guard(mutex_);
    waiting_.erase(run_id);
  }
  auto run = folder(run_id);
  if (!run.ok()) return;
  const auto launch = run->read<LaunchRecord>(RunFolder::kLaunch);
  const auto lock = run->lock();
  if (!launch.ok() || !*launch || !lock) return;
  const auto mine = run->write_once(RunFolder::kClaim, ClaimRecord{}, Durable::yes);
  if (mine.ok() && *mine) (void)write_missing_ends(*run, **launch, EndCause::launch_failed, why).ok();
}

void SupervisedRuns::set_detail(const std::string& run_id, Text detail) {
  const std::lock_guard guard(mutex_);
  if (const auto it = waiting_.find(run_id); it != waiting_.end()) it->second = std::move(detail);
}

bool SupervisedRuns::waiting(const std::string& run_id) {
  const std::lock_guard guard(mutex_);
  return waiting_.contains(run_id);
}

void SupervisedRuns::on_change(std::function<void(const std::string&)> callback) {
  watcher_.on_change(std::move(callback));
}

Result<void> SupervisedRuns::write_down(LaunchRecord record) {
  record.owner = owner_;
  const std::string& run_id = record.plan.run_id;
  if (::mkdirat(root_.fd(), run_id.c_str(), 0700) != 0 && errno != EEXIST)
    return system_error("mkdir " + path(run_id), errno);
  TRY(Directory::create(record.plan.log_dir, 0755));
  const RunFolder run = TRY(folder(run_id));
  run.keep_room();
  const Fd lock(::openat(run.fd(), RunFolder::kLock, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return system_error("open lock", errno);
  TRY(run.write(RunFolder::kLaunch, record, Durable::no));
  watcher_.watch_folder(run_id, path(run_id));
  return {};
}

void SupervisedRuns::watch_supervisor(const std::string& run_id, const RunFolder& run) {
  auto claim = run.read<ClaimRecord>(RunFolder::kClaim);
  if (!claim.ok() || !*claim || (*claim)->pid <= 0 || !run.locked()) return;
  Fd process = open_process((*claim)->pid);
  // Still locked: so its holder lived when the descriptor was made, and the number was not another's.
  if (!run.locked()) return;
  watcher_.watch_process(run_id, std::move(process));
  const std::lock_guard guard(mutex_);
  watched_.insert(run_id);
}

Result<void> SupervisedRuns::supervise(const std::string& run_id) {
  std::vector<std::string> argv = options_.supervisor;
  argv.push_back(run_id);
  const pid_t pid = TRY(spawn_supervisor(std::move(argv), path(run_id)));
  watcher_.watch_process(run_id, open_process(pid));
  const std::lock_guard guard(mutex_);
  watched_.insert(run_id);
  launching_[run_id] = open_process(pid);
  return {};
}

void SupervisedRuns::forget(const std::string& run_id) {
  watcher_.forget(run_id);
  const std::lock_guard guard(mutex_);
  launching_.erase(run_id);
  watched_.erase(run_id);
  waiting_.erase(run_id);
}

/// Is a supervisor on its way that has not claimed its run yet?
bool SupervisedRuns::is_launching(const std::string& run_id) {
  const std::lock_guard guard(mutex_);
  if (starting_.contains(run_id) || waiting_.contains(run_id)) return true;
  const auto it = launching_.find(run_id);
  return it != launching_.end() && !has_ended(it->second);
}

void SupervisedRuns::launched(const std::string& run_id, const RunFolder& run) {
  bool watch;
  {
    const std::lock_guard guard(mutex_);
    launching_.erase(run_id);
    watch = !watched_.contains(run_id);
  }
  if (watch) watch_supervisor(run_id, run);
}

/// Ends an unfinished run whose supervisor is gone. The ranks' first processes hold the lock too, so that
/// whoever gets it knows that they are dead or dying.
Result<void> SupervisedRuns::settle(const std::string& run_id, const RunFolder& run,
                                    const LaunchRecord& launch) {
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

bool SupervisedRuns::Records::complete() const {
  return std::all_of(ends.begin(), ends.end(), [](const auto& end) { return end.has_value(); });
}

Result<SupervisedRuns::Records> SupervisedRuns::read_records(const RunFolder& run, std::size_t ranks) {
  Records out;
  for (std::size_t i = 0; i < ranks; ++i) {
    out.starts.push_back(TRY(run.read<StartRecord>(RunFolder::start_name(i))));
    out.ends.push_back(TRY(run.read<EndRecord>(RunFolder::end_name(i))));
  }
  return out;
}

/// In a copy of another server's directory, what goes by the run's name is that server's.
Result<void> SupervisedRuns::clear(const LaunchRecord& launch, std::size_t rank) const {
  if (launch.owner == owner_) return options_.clear(launch, rank);
  log::warning("run {} was started from another directory: what it left behind is not looked for",
               launch.plan.run_id);
  return {};
}

/// Writes the ends that a supervisor owed and can no longer write, with the lock held.
Result<void> SupervisedRuns::write_missing_ends(const RunFolder& run, const LaunchRecord& launch,
                                                EndCause cause, const std::optional<Text>& why) {
  if (cause == EndCause::lost && launch.owner == owner_ && options_.abandoned) options_.abandoned(launch);
  Records records = TRY(read_records(run, launch.plan.ranks.size()));
  for (std::size_t i = 0; i < records.ends.size(); ++i) {
    if (records.ends[i]) continue;
    const Usage used = options_.usage(launch, i, records.starts[i]);
    EndRecord record;
    record.order = static_cast<std::int64_t>(i);
    record.end.cause = cause;
    record.end.at = clock_.now();
    record.end.cpu_seconds = used.cpu_seconds;
    record.end.memory_peak_bytes = used.memory_peak_bytes;
    record.end.message = why ? *why : end_text(record.end, launch.plan, std::nullopt, std::nullopt);
    if (records.starts[i]) await_end(records.starts[i]->pid);
    if (auto cleared = clear(launch, i); !cleared.ok())
      log::warning("run {}: {}", launch.plan.run_id, cleared.error().describe(Language::en));
    TRY(run.write(RunFolder::end_name(i), record, Durable::yes));
  }
  return {};
}

Result<RunStatus> SupervisedRuns::inspect(const std::string& run_id) {
  const RunFolder run = TRY(folder(run_id));
  const LaunchRecord launch = TRY(launch_record(run, run_id));
  const std::size_t count = launch.plan.ranks.size();
  auto records = TRY(read_records(run, count));
  if (!records.complete()) {
    TRY(settle(run_id, run, launch));
    records = TRY(read_records(run, count));
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
    const std::lock_guard guard(mutex_);
    if (const auto it = waiting_.find(run_id); it != waiting_.end()) status.detail = it->second;
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

Result<void> SupervisedRuns::stop(const std::string& run_id, std::optional<Duration> grace) {
  const RunFolder run = TRY(folder(run_id));
  const LaunchRecord launch = TRY(launch_record(run, run_id));
  StopRecord request;
  if (grace) request.grace_ms = grace->count();
  TRY(run.write(RunFolder::kStop, request, Durable::yes));
  if (const auto lock = run.lock()) {
    // Nobody runs it: it ended, was lost, or its supervisor is not up yet and will find it claimed.
    const bool never_ran = TRY(run.write_once(RunFolder::kClaim, ClaimRecord{}, Durable::yes));
    TRY(write_missing_ends(run, launch, never_ran ? EndCause::stopped : EndCause::lost));
    const std::lock_guard guard(mutex_);
    waiting_.erase(run_id);
    return {};
  }
  // Without a reader yet, the supervisor looks for the request when it opens its end.
  const Fd control(::openat(run.fd(), RunFolder::kControl, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  if (control) (void)!::write(control.get(), "s", 1);
  return {};
}

Result<void> SupervisedRuns::remove(const std::string& run_id) {
  auto run = folder(run_id);
  if (!run.ok()) return {};
  auto status = inspect(run_id);
  if (status.ok() && status->state != RankState::ended)
    return Error{Code::failed_precondition, {"尚未结束：" + run_id, "has not ended: " + run_id}};
  if (status.ok()) {
    const LaunchRecord launch = TRY(launch_record(*run, run_id));
    for (std::size_t i = launch.plan.ranks.size(); i-- > 0;) TRY(clear(launch, i));
  }
  forget(run_id);
  erase(root_.fd(), run_id);
  return {};
}

Result<std::vector<std::string>> SupervisedRuns::list() {
  std::vector<std::string> out;
  for (const auto& run_id : entries(root_.fd()))
    if (auto run = folder(run_id); run.ok() && run->has(RunFolder::kLaunch)) out.push_back(run_id);
  std::sort(out.begin(), out.end());
  return out;
}

Result<Usage> SupervisedRuns::usage(const std::string& run_id) {
  const RunFolder run = TRY(folder(run_id));
  const LaunchRecord launch = TRY(launch_record(run, run_id));
  Usage out;
  for (std::size_t i = 0; i < launch.plan.ranks.size(); ++i) {
    if (const auto end = TRY(run.read<EndRecord>(RunFolder::end_name(i)))) {
      out.cpu_seconds += end->end.cpu_seconds;
      out.memory_peak_bytes += end->end.memory_peak_bytes;
      continue;
    }
    const Usage now = options_.usage(launch, i, TRY(run.read<StartRecord>(RunFolder::start_name(i))));
    out.cpu_seconds += now.cpu_seconds;
    out.memory_bytes += now.memory_bytes;
    out.memory_peak_bytes += now.memory_peak_bytes;
  }
  return out;
}

}  // namespace lathe::engines
