#include "engines/process/rank_process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "engines/supervised/environment.h"
#include "engines/supervised/first_process.h"

namespace lathe::engines {

namespace {

using namespace first_process;

[[noreturn]] void fail(const Error& error) {
  first_process::fail(error.describe(Language::zh), error.describe(Language::en));
}

/// A system call's error says which one, but not what for.
Error of_sandbox(Error error) {
  if (error.code != Code::internal) return error;
  error.message.zh = "无法建立作业的沙箱：" + error.message.zh;
  error.message.en = "the job's sandbox cannot be set up: " + error.message.en;
  return error;
}

/// Standard input, output and error, the channel and the lock; nothing else stays open.
void arrange_descriptors(const RankProcess& rank) {
  const int channel = ::fcntl(rank.channel.get(), F_DUPFD_CLOEXEC, 100);
  const int output = ::fcntl(rank.output.get(), F_DUPFD_CLOEXEC, 100);
  const int lock = ::fcntl(rank.lock.get(), F_DUPFD_CLOEXEC, 100);
  const int input = ::fcntl(::open("/dev/null", O_RDONLY | O_CLOEXEC), F_DUPFD_CLOEXEC, 100);
  ::dup2(input, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::dup3(channel, kChannel, O_CLOEXEC);
  ::dup3(lock, kLock, O_CLOEXEC);
  ::close_range(kLock + 1, ~0U, 0);
}

void limit_by_process(const LaunchRecord& launch, std::size_t rank) {
  const Resources& wanted = launch.plan.ranks[rank].resources;
  auto limit = [](auto what, std::int64_t most) {
    const struct rlimit both { static_cast<rlim_t>(most), static_cast<rlim_t>(most) };
    if (most > 0) ::setrlimit(what, &both);
  };
  if (launch.memory_by_process) limit(RLIMIT_DATA, wanted.memory_bytes);
  if (launch.pids_by_process) limit(RLIMIT_NPROC, wanted.pids);
}

int become_command(const RankProcess& rank) {
  for (int ignored : {SIGPIPE, SIGHUP, SIGINT}) ::signal(ignored, SIG_DFL);  // by the supervisor
  limit_by_process(rank.launch, rank.rank);
  const auto& plan = rank.launch.plan;
  auto env = environment(plan, rank.rank, rank.launch.rules);
  std::vector<char*> argv_pointers, env_pointers;
  for (const auto& argument : plan.argv) argv_pointers.push_back(const_cast<char*>(argument.c_str()));
  for (auto& var : env) env_pointers.push_back(var.data());
  argv_pointers.push_back(nullptr);
  env_pointers.push_back(nullptr);
  return exec_in_path(argv_pointers, env_pointers);
}

[[noreturn]] void run(RankProcess rank) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::umask(022);
  for (const auto& entrance : rank.entrances)
    if (::write(entrance.get(), "0", 1) != 1) {
      const int why = errno;
      arrange_descriptors(rank);
      fail(system_error("enter the cgroup", why));
    }
  arrange_descriptors(rank);
  ::setsid();
  // Under memory pressure of the whole machine a job goes before the server does.
  if (const Fd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)); score)
    (void)!::write(score.get(), "500", 3);

  const auto& plan = rank.launch.plan;
  auto ready = enter_view(plan, rank.rank, rank.launch.rules, rank.staging);
  if (ready.ok()) ready = drop_privileges(plan, rank.launch.rules);
  if (!ready.ok()) fail(of_sandbox(ready.error()));
  ::prctl(PR_SET_DUMPABLE, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of uid clears it
  if (::chdir(plan.work_dir.c_str()) != 0)
    fail({Code::not_found,
          {"工作目录不存在或不可进入：" + plan.work_dir,
           "cannot enter the working directory: " + plan.work_dir}});

  const int signals = watch_children();
  if (signals < 0) fail(system_error("signalfd", errno));
  live(
      signals, [&rank] { return become_command(rank); }, [] {});
}

}  // namespace

Result<pid_t> spawn_rank(RankProcess rank, int clone_into_cgroup) {
  clone_args args{};
  args.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS;
  // MPS clients and their server share memory.
  if (!has_gpu_share(rank.launch.plan.ranks[rank.rank].resources)) args.flags |= CLONE_NEWIPC;
  args.exit_signal = SIGCHLD;
  if (clone_into_cgroup >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(clone_into_cgroup);
  }
  const long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) run(std::move(rank));
  if (pid < 0) return system_error("clone3", errno);
  return static_cast<pid_t>(pid);
}

}  // namespace lathe::engines
