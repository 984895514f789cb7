#include "engines/supervised/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/log.h"
#include "engines/supervised/channel.h"
#include "engines/supervised/end_text.h"
#include "engines/supervised/rank_log.h"

namespace lathe::engines {

namespace {

using Moment = std::chrono::steady_clock::time_point;

struct Rank {
  std::unique_ptr<RankBody> body;
  std::optional<RankLog> log;
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
  Supervisor(const RunFolder& folder, const LaunchRecord& launch, Crew& crew)
      : folder_(folder), launch_(launch), crew_(crew) {
    for (std::size_t i = 0; i < plan().ranks.size(); ++i) {
      ranks_.emplace_back();
      ranks_.back().body = crew.make(i);
    }
  }

  int run() {
    auto ready = prepare();
    if (ready.ok()) ready = make_durable();
    if (!ready.ok()) {
      for (auto& rank : ranks_) cannot_start(rank, ready.error());
      kill_all();
    }
    while (true) {
      take_ends();
      settle();
      if (all_recorded()) break;
      wait_for_something();
      act_on_deadlines();
    }
    // The first one last: others may share what is its.
    for (auto rank = ranks_.rbegin(); rank != ranks_.rend(); ++rank) rank->body->clear();
    return 0;
  }

 private:
  const LaunchPlan& plan() const { return launch_.plan; }

  static void cannot_start(Rank& rank, const Error& why) {
    if (!rank.setup_error) rank.setup_error = Text{why.describe(Language::zh), why.describe(Language::en)};
  }

  Result<void> prepare() {
    sigset_t watched;
    ::sigemptyset(&watched);
    ::sigaddset(&watched, SIGCHLD);
    ::sigaddset(&watched, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
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

    TRY(crew_.prepare());
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      Fd log(::open(rank_log_path(plan(), i).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW,
                    0644));
      if (!log) return system_error("open " + rank_log_path(plan(), i), errno);
      ranks_[i].log.emplace(std::move(log), plan().max_log_bytes);
      TRY(ranks_[i].body->begin());
    }
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
      if (running_) ::send(rank.body->channel(), &channel::kStop, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    rank.kill_at = std::min(*rank.kill_at, deadline);
    if (!running_ || grace.count() == 0) rank.body->kill();
  }

  void kill_all() {
    for (const auto& rank : ranks_) rank.body->kill();
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
    std::vector<pollfd> waits = {{signals_.get(), POLLIN, 0}, {control_.get(), POLLIN, 0}};
    for (const auto& rank : ranks_) {
      waits.push_back({rank.body->channel(), POLLIN, 0});
      waits.push_back({rank.body->output(), POLLIN, 0});
      waits.push_back({rank.end ? -1 : rank.body->signal(), POLLIN, 0});
    }
    if (::poll(waits.data(), waits.size(), milliseconds_to_wait()) < 0) return;
    if (waits[1].revents) {
      char drained[64];
      while (::read(control_.get(), drained, sizeof drained) > 0) {
      }
      read_stop_request();
    }
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (waits[2 + 3 * i].revents) hear(ranks_[i]);
      if (waits[3 + 3 * i].revents) copy_output(ranks_[i], kSomeOutput);
      if (waits[4 + 3 * i].revents) attend(ranks_[i]);
    }
    if (!running_ && !stop_requested_ && durable_ &&
        std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.ready; }))
      go();
    if (waits[0].revents) take_signals();
  }

  void attend(Rank& rank) {
    auto made = rank.body->attend();
    if (made.ok()) return;
    cannot_start(rank, made.error());
    kill_all();
  }

  void take_signals() {
    signalfd_siginfo signal;
    while (::read(signals_.get(), &signal, sizeof signal) == sizeof signal)
      if (signal.ssi_signo == SIGTERM) stop_all(EndCause::lost, plan().stop_grace);
  }

  void take_ends() {
    for (auto& rank : ranks_) {
      if (rank.end || !rank.body->over()) continue;
      while (hear(rank)) {
      }
      copy_output(rank, kAllOutput);
      end(rank);
    }
  }

  /// Takes one packet from the rank's first process; false: there is none.
  bool hear(Rank& rank) {
    char packet[4096];
    const ssize_t size = ::recv(rank.body->channel(), packet, sizeof packet, MSG_DONTWAIT);
    if (size <= 0) {
      if (size == 0 || (errno != EAGAIN && errno != EINTR)) rank.body->close_channel();
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
      case channel::kDone:
        rank.body->done();
        break;
      default:
        break;
    }
    return true;
  }

  static constexpr std::size_t kSomeOutput = 1 << 20, kAllOutput = SIZE_MAX;
  void copy_output(Rank& rank, std::size_t at_most) {
    static char buffer[256 * 1024];
    for (std::size_t copied = 0; copied < at_most && rank.body->output() >= 0;) {
      const ssize_t got = ::read(rank.body->output(), buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return;
      if (got == 0) return rank.body->close_output();
      rank.log->append({buffer, static_cast<std::size_t>(got)});
      copied += static_cast<std::size_t>(got);
    }
  }

  void go() {
    const Time now = clock_.now();
    for (std::size_t i = 0; i < ranks_.size(); ++i)
      (void)folder_.write(RunFolder::start_name(i), StartRecord{ranks_[i].body->pid(), now}, Durable::no)
          .ok();
    running_ = true;
    for (const auto& rank : ranks_) ::send(rank.body->channel(), &channel::kGo, 1, MSG_NOSIGNAL);
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
        rank.body->kill();
        rank.kill_at.reset();
      }
  }

  /// Writes down what has not been written down yet.
  void settle() {
    if (retry_at_ && std::chrono::steady_clock::now() < *retry_at_) return;
    retry_at_.reset();
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      Rank& rank = ranks_[i];
      if (!rank.end || rank.recorded) continue;
      if (rank.log) rank.log->finish();
      auto written = folder_.write(RunFolder::end_name(i), *rank.end, Durable::yes);
      if (!written.ok() && folder_.give_up_room())
        written = folder_.write(RunFolder::end_name(i), *rank.end, Durable::yes);
      if (!written.ok()) {  // a full disk: the run has not ended before somebody can know how
        log::error("cannot record the end of rank {}: {}", i, written.error().describe(Language::en));
        retry_at_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        continue;
      }
      rank.recorded = true;
    }
  }

  bool all_recorded() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.recorded; });
  }

  void end(Rank& rank) {
    EndRecord record;
    record.order = ends_++;
    RankEnd& end = record.end;
    end.at = clock_.now();
    const RankBody::Account account = rank.body->account();
    end.cpu_seconds = account.cpu_seconds;
    end.memory_peak_bytes = account.memory_peak_bytes;
    decide(rank, account.out_of_memory, end);
    end.message = end_text(end, plan(), rank.exec_error, first_failed_);
    if (rank.setup_error) end.message = *rank.setup_error;
    rank.end = std::move(record);
    if (!rank.end->end.success() && !first_failed_) {
      first_failed_ = static_cast<std::size_t>(&rank - ranks_.data());
      siblings_at_ = std::chrono::steady_clock::now() + (running_ ? plan().gang_grace : Duration{0});
    }
  }

  void decide(const Rank& rank, bool out_of_memory, RankEnd& end) const {
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
    } else if (failed && out_of_memory) {
      end.cause = EndCause::out_of_memory;
    } else if (!rank.status && rank.body->has_other_masters()) {
      end.cause = EndCause::lost;
    } else {
      end.cause = end.signal ? EndCause::signaled : EndCause::exited;
    }
  }

  bool someone_could_not_start() const {
    return std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.setup_error.has_value(); });
  }

  const RunFolder& folder_;
  const LaunchRecord& launch_;
  Crew& crew_;
  Fd signals_, control_;
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

int supervise(const RunFolder& folder, const LaunchRecord& launch, Crew& crew) {
  return Supervisor(folder, launch, crew).run();
}

}  // namespace lathe::engines
