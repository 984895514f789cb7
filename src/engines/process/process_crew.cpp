#include "engines/process/process_crew.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "engines/process/rank_process.h"
#include "engines/process/sandbox.h"
#include "engines/supervised/cgroup.h"

namespace lathe::engines {

namespace {

class ProcessRank final : public RankBody {
 public:
  ProcessRank(const LaunchRecord& launch, std::size_t rank, const std::string& staging, const Fd& lock)
      : launch_(launch), rank_(rank), staging_(staging), lock_(lock), cgroup_(rank_cgroup(launch, rank)) {}

  Result<void> begin() override {
    const LaunchPlan& plan = launch_.plan;
    TRY(cgroup_.create(plan.ranks[rank_].resources));
    int ends[2], output[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      return system_error("socketpair", errno);
    channel_ = Fd(ends[0]);
    Fd their_channel(ends[1]);
    if (::pipe2(output, O_CLOEXEC) != 0) return system_error("pipe", errno);
    output_ = Fd(output[0]);
    Fd their_output(output[1]);
    ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
    if (!launch_.rules.user_namespace)  // or else nobody could open /dev/stdout
      (void)!::fchown(their_output.get(), static_cast<uid_t>(plan.uid), static_cast<gid_t>(plan.gid));
    Fd lock(::fcntl(lock_.get(), F_DUPFD_CLOEXEC, 3));
    const Fd target = cgroup_.clone_target();
    pid_ = TRY(spawn_rank({launch_, rank_, staging_, std::move(their_channel), std::move(their_output),
                           std::move(lock), cgroup_.entrances()},
                          target.get()));
    return {};
  }

  bool over() override {
    if (pid_ == 0) return true;
    int status = 0;
    if (::wait4(pid_, &status, WNOHANG, &used_) != pid_) return false;
    pid_ = 0;
    return true;
  }

  void kill() override {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
  }
  std::int64_t pid() const override { return pid_; }

  Account account() override {
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    Account out;
    out.cpu_seconds = cgroup_.cpu_seconds().value_or(seconds(used_.ru_utime) + seconds(used_.ru_stime));
    out.memory_peak_bytes = cgroup_.memory_peak();
    if (out.memory_peak_bytes == 0) out.memory_peak_bytes = used_.ru_maxrss * 1024;
    out.out_of_memory = cgroup_.oom_kills() > 0;
    return out;
  }

  void clear() override { cgroup_.destroy(); }

 private:
  const LaunchRecord& launch_;
  const std::size_t rank_;
  const std::string& staging_;
  const Fd& lock_;
  const Cgroup cgroup_;
  pid_t pid_ = 0;
  struct rusage used_ {};
};

}  // namespace

Result<void> ProcessCrew::prepare() {
  if (launch_.rules.user_namespace) TRY(enter_user_namespace(launch_.plan.uid, launch_.plan.gid));
  if (launch_.plan.network == Network::none) TRY(enter_empty_network());
  return {};
}

std::unique_ptr<RankBody> ProcessCrew::make(std::size_t rank) {
  return std::make_unique<ProcessRank>(launch_, rank, staging_, lock_);
}

}  // namespace lathe::engines
