#include "engines/process/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <optional>

#include "base/log.h"
#include "engines/process/end_text.h"
#include "engines/process/rank_log.h"
#include "engines/process/rank_process.h"
#include "engines/process/record.h"

namespace lathe::engines {

namespace {

using Moment = std::chrono::steady_clock::time_point;

struct Rank {
  explicit Rank(Cgroup group) : cgroup(std::move(group)) {}
  Cgroup cgroup;
  Fd channel;
  Fd output;
  std::optional<RankLog> log;
  pid_t pid = 0;  ///< of its first process; 0: none, or reaped
  bool ready = false;
  std::optional<Text> setup_error;
  std::optional<int> exec_error;       ///< the command did not start
  std::optional<int> status;           ///< the command's wait status
  std::optional<EndCause> stop_cause;  ///< somebody, here, asked it to end
  std::optional<Moment> kill_at;
  std::optional<EndRecord> end;
  bool recorded = false;
};

class Supervisor {
 public:
  Supervisor(RunFolder folder, std::string path, Fd lock, LaunchRecord launch)
      : folder_(std::move(folder)),
        path_(std::move(path)),
        lock_(std::move(lock)),
        launch_(std::move(launch)) {
    for (std::size_t i = 0; i < plan().ranks.size(); ++i) ranks_.emplace_back(rank_cgroup(launch_, i));
  }

  int run() {
    auto ready = prepare();
    if (ready.ok()) ready = make_durable();
    if (!ready.ok()) {
      for (auto& rank : ranks_)
        if (!rank.setup_error)
          rank.setup_error = Text{ready.error().describe(Language::zh), ready.error().describe(Language::en)};
      kill_all();
    }
    while (!all_recorded()) {
      wait_for_something();
      act_on_deadlines();
      settle();
    }
    return 0;
  }

 private:
  const LaunchPlan& plan() const { return launch_.plan; }

  Result<void> prepare() {
    sigset_t watched;
    ::sigemptyset(&watched);
    ::sigaddset(&watched, SIGCHLD);
    ::sigaddset(&watched, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &watched, nullptr);
    for (int ignored : {SIGPIPE, SIGHUP, SIGINT}) ::signal(ignored, SIG_IGN);
    signals_ = Fd(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_) return system_error("signalfd", errno);

    if (::mkfifoat(folder_.fd(), RunFolder::kControl, 0600) != 0 && errno != EEXIST)
      return system_error("mkfifo", errno);
    control_ = Fd(::openat(folder_.fd(), RunFolder::kControl, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!control_) return system_error("open control", errno);
    // Only now: a request that comes later finds the FIFO open, an earlier one is found here.
    read_stop_request();
    if (stop_requested_) return {};

    if (launch_.rules.user_namespace) TRY(enter_user_namespace(plan().uid, plan().gid));
    if (plan().network == Network::none) TRY(enter_empty_network());
    for (std::size_t i = 0; i < ranks_.size(); ++i) TRY(spawn(i));
    return {};
  }

  Result<void> spawn(std::size_t index) {
    Rank& rank = ranks_[index];
    Fd log(::open(rank_log_path(plan(), index).c_str(),
                  O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!log) return system_error("open " + rank_log_path(plan(), index), errno);
    rank.log.emplace(std::move(log), plan().max_log_bytes);
    TRY(rank.cgroup.create(plan().ranks[index].resources));
    int ends[2], output[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      return system_error("socketpair", errno);
    rank.channel = Fd(ends[0]);
    Fd their_channel(ends[1]);
    if (::pipe2(output, O_CLOEXEC) != 0) return system_error("pipe", errno);
    rank.output = Fd(output[0]);
    Fd their_output(output[1]);
    ::fcntl(rank.output.get(), F_SETFL, O_NONBLOCK);
    if (!launch_.rules.user_namespace)  // or else nobody could open /dev/stdout
      (void)!::fchown(their_output.get(), static_cast<uid_t>(plan().uid), static_cast<gid_t>(plan().gid));
    Fd lock(::fcntl(lock_.get(), F_DUPFD_CLOEXEC, 3));
    const Fd target = rank.cgroup.clone_target();
    rank.pid = TRY(spawn_rank({launch_, index, path_, std::move(their_channel), std::move(their_output),
                               std::move(lock), rank.cgroup.entrances()},
                              target.get()));
    return {};
  }

  /// The claim is what keeps a run from being run again after a power failure: it must be on the disk before
  /// the command runs. The views are being built meanwhile.
  Result<void> make_durable() {
    const Fd claim(::openat(folder_.fd(), RunFolder::kClaim, O_RDONLY | O_CLOEXEC));
    const Fd launch(::openat(folder_.fd(), RunFolder::kLaunch, O_RDONLY | O_CLOEXEC));
    const Fd parent(::openat(folder_.fd(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int fd : {claim.get(), launch.get(), folder_.fd(), parent.get()})
      if (::fsync(fd) != 0) return system_error("fsync", errno);
    durable_ = true;
    return {};
  }

  void read_stop_request() {
    auto request = folder_.read<StopRecord>(RunFolder::kStop);
    if (!request.ok() || !*request) return;
    stop_requested_ = true;
    const Duration grace = (*request)->grace_ms ? Duration(*(*request)->grace_ms) : plan().stop_grace;
    stop_all(EndCause::stopped, grace);
  }

  void stop_all(EndCause cause, Duration grace) {
    for (auto& rank : ranks_) stop(rank, cause, grace);
  }

  void stop(Rank& rank, EndCause cause, Duration grace) {
    if (rank.end) return;
    const Moment deadline = std::chrono::steady_clock::now() + grace;
    if (!rank.stop_cause) {
      rank.stop_cause = cause;
      rank.kill_at = deadline;
      if (running_) ::send(rank.channel.get(), &channel::kStop, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    rank.kill_at = std::min(*rank.kill_at, deadline);
    if (!running_ || grace.count() == 0) kill(rank);
  }

  static void kill(const Rank& rank) {
    if (rank.pid > 0) ::kill(rank.pid, SIGKILL);
  }
  void kill_all() {
    for (const auto& rank : ranks_) kill(rank);
  }

  int milliseconds_to_wait() const {
    std::optional<Moment> next;
    auto consider = [&](const std::optional<Moment>& moment) {
      if (moment && (!next || *moment < *next)) next = moment;
    };
    for (const auto& rank : ranks_)
      if (!rank.end) consider(rank.kill_at);
    consider(time_limit_at_);
    consider(siblings_at_);
    consider(retry_at_);
    if (!next) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*next - std::chrono::steady_clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
  }

  void wait_for_something() {
    const bool anything_alive =
        std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.pid > 0; });
    std::vector<pollfd> waits = {{signals_.get(), POLLIN, 0}, {control_.get(), POLLIN, 0}};
    for (const auto& rank : ranks_) {
      waits.push_back({rank.channel.get(), POLLIN, 0});
      waits.push_back({rank.output.get(), POLLIN, 0});
    }
    if (::poll(waits.data(), waits.size(), anything_alive || retry_at_ ? milliseconds_to_wait() : 0) < 0)
      return;
    if (waits[1].revents) {
      char drained[64];
      while (::read(control_.get(), drained, sizeof drained) > 0) {
      }
      read_stop_request();
    }
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (waits[2 + 2 * i].revents) hear(ranks_[i]);
      if (waits[3 + 2 * i].revents) copy_output(ranks_[i], kSomeOutput);
    }
    if (running_ == false && !stop_requested_ && durable_ &&
        std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.ready; }))
      go();
    if (waits[0].revents) take_signals();
  }

  void take_signals() {
    signalfd_siginfo signal;
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal)
      if (signal.ssi_signo == SIGTERM) stop_all(EndCause::lost, plan().stop_grace);
    for (auto& rank : ranks_) {
      if (rank.pid <= 0) continue;
      int status = 0;
      struct rusage used {};
      if (::wait4(rank.pid, &status, WNOHANG, &used) != rank.pid) continue;
      rank.pid = 0;
      while (hear(rank)) {
      }
      copy_output(rank, kAllOutput);
      end(rank, used);
    }
  }

  /// Takes one packet from the rank's first process; false: there is none.
  bool hear(Rank& rank) {
    char packet[4096];
    const ssize_t size = ::recv(rank.channel.get(), packet, sizeof packet, MSG_DONTWAIT);
    if (size <= 0) {
      if (size == 0) rank.channel.reset();
      return false;
    }
    int number = 0;
    if (size == 1 + static_cast<ssize_t>(sizeof number)) std::memcpy(&number, packet + 1, sizeof number);
    const std::string_view body(packet + 1, static_cast<std::size_t>(size) - 1);
    switch (packet[0]) {
      case channel::kReady:
        rank.ready = true;
        break;
      case channel::kFailed:
        rank.setup_error = Text{std::string(body.substr(0, body.find('\0'))),
                                std::string(body.substr(std::min(body.find('\0'), body.size() - 1) + 1))};
        kill_all();
        break;
      case channel::kExec:
        if (number != 0) rank.exec_error = number;
        break;
      case channel::kExit:
        rank.status = number;
        break;
      default:
        break;
    }
    return true;
  }

  static constexpr std::size_t kSomeOutput = 1 << 20, kAllOutput = SIZE_MAX;
  void copy_output(Rank& rank, std::size_t at_most) {
    static char buffer[256 * 1024];
    for (std::size_t copied = 0; copied < at_most && rank.output;) {
      const ssize_t got = ::read(rank.output.get(), buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return;
      if (got == 0) return rank.output.reset();
      rank.log->append({buffer, static_cast<std::size_t>(got)});
      copied += static_cast<std::size_t>(got);
    }
  }

  void go() {
    const Time now = clock_.now();
    for (std::size_t i = 0; i < ranks_.size(); ++i)
      (void)folder_.write(RunFolder::start_name(i), StartRecord{ranks_[i].pid, now}, Durable::no).ok();
    running_ = true;
    for (const auto& rank : ranks_) ::send(rank.channel.get(), &channel::kGo, 1, MSG_NOSIGNAL);
    if (plan().time_limit.count() > 0) time_limit_at_ = std::chrono::steady_clock::now() + plan().time_limit;
  }

  void act_on_deadlines() {
    const Moment now = std::chrono::steady_clock::now();
    if (time_limit_at_ && now >= *time_limit_at_) {
      time_limit_at_.reset();
      stop_all(EndCause::time_limit, plan().stop_grace);
    }
    if (siblings_at_ && now >= *siblings_at_) {
      siblings_at_.reset();
      stop_all(EndCause::sibling_failed, plan().stop_grace);
    }
    for (auto& rank : ranks_)
      if (!rank.end && rank.kill_at && now >= *rank.kill_at) {
        kill(rank);
        rank.kill_at.reset();
      }
  }

  /// Ends ranks that never had a process, and writes down what has not been written down yet.
  void settle() {
    for (auto& rank : ranks_)
      if (!rank.end && rank.pid == 0) end(rank, {});
    if (retry_at_ && std::chrono::steady_clock::now() < *retry_at_) return;
    retry_at_.reset();
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      Rank& rank = ranks_[i];
      if (!rank.end || rank.recorded) continue;
      if (rank.log) rank.log->finish();
      const auto written = folder_.write(RunFolder::end_name(i), *rank.end, Durable::yes);
      if (!written.ok()) {  // a full disk: the run has not ended before somebody can know how
        log::error("cannot record the end of rank {}: {}", i, written.error().describe(Language::en));
        retry_at_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        continue;
      }
      rank.recorded = true;
      rank.cgroup.destroy();
    }
  }

  bool all_recorded() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.recorded; });
  }

  void end(Rank& rank, const struct rusage& used) {
    EndRecord record;
    record.order = ends_++;
    RankEnd& end = record.end;
    end.at = clock_.now();
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    end.cpu_seconds = rank.cgroup.cpu_seconds().value_or(seconds(used.ru_utime) + seconds(used.ru_stime));
    end.memory_peak_bytes = rank.cgroup.memory_peak();
    if (end.memory_peak_bytes == 0) end.memory_peak_bytes = used.ru_maxrss * 1024;
    decide(rank, end);
    end.message = end_text(end, plan(), rank.exec_error, first_failed_);
    if (rank.setup_error) end.message = *rank.setup_error;
    rank.end = std::move(record);
    if (!rank.end->end.success() && !first_failed_) {
      first_failed_ = static_cast<std::size_t>(&rank - ranks_.data());
      siblings_at_ = std::chrono::steady_clock::now() + (running_ ? plan().gang_grace : Duration{0});
    }
  }

  void decide(const Rank& rank, RankEnd& end) const {
    if (rank.exec_error) {
      end.cause = EndCause::exited;
      end.exit_code = *rank.exec_error == ENOENT ? 127 : 126;
      return;
    }
    if (rank.status && WIFEXITED(*rank.status)) end.exit_code = WEXITSTATUS(*rank.status);
    if (rank.status && WIFSIGNALED(*rank.status)) end.signal = WTERMSIG(*rank.status);
    if (!rank.status && running_) end.signal = SIGKILL;  // its whole namespace was killed
    const bool failed = end.exit_code != 0;
    if (rank.setup_error) {
      end.cause = EndCause::launch_failed;
    } else if (rank.stop_cause) {
      end.cause = *rank.stop_cause;
    } else if (!running_) {
      end.cause =
          first_failed_ || someone_could_not_start() ? EndCause::sibling_failed : EndCause::launch_failed;
    } else if (failed && rank.cgroup.oom_kills() > 0) {
      end.cause = EndCause::out_of_memory;
    } else {
      end.cause = end.signal ? EndCause::signaled : EndCause::exited;
    }
  }

  bool someone_could_not_start() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.setup_error.has_value(); });
  }

  RunFolder folder_;
  std::string path_;
  Fd lock_, signals_, control_;
  LaunchRecord launch_;
  SystemClock clock_;
  std::vector<Rank> ranks_;
  bool durable_ = false;
  bool stop_requested_ = false;
  bool running_ = false;  ///< kGo was sent
  std::optional<Moment> time_limit_at_, siblings_at_, retry_at_;
  std::optional<std::size_t> first_failed_;
  std::int64_t ends_ = 0;
};

}  // namespace

int supervise_main(int argc, char** argv) {
  if (argc < 3) return 1;
  ::umask(077);
  ::close_range(3, ~0U, 0);
  ::setsid();
  ::prctl(PR_SET_NAME, "lathe-run");
  char path[PATH_MAX];
  auto folder = RunFolder::open(AT_FDCWD, ".");
  if (!folder.ok() || !::getcwd(path, sizeof path) || ::chdir("/") != 0) return 1;
  auto lock = folder->lock();
  if (!lock) return 0;
  auto claimed = folder->write_once(RunFolder::kClaim, ClaimRecord{::getpid()}, Durable::no);
  if (!claimed.ok()) return 1;
  if (!*claimed) return 0;
  auto launch = folder->read<LaunchRecord>(RunFolder::kLaunch);
  if (!launch.ok() || !*launch) {
    log::error("{}: no launch record", argv[2]);
    return 1;
  }
  return Supervisor(std::move(*folder), path, std::move(*lock), std::move(**launch)).run();
}

}  // namespace lathe::engines
