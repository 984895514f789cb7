#include "engines/process/rank_process.h"
#include "engines/supervised/environment.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace lathe::engines {

namespace {

constexpr int kChannel = 3;
constexpr int kLock = 4;

void say(char what) {
  ::send(kChannel, &what, 1, MSG_NOSIGNAL);
}

void say(char what, int number) {
  char packet[1 + sizeof number];
  packet[0] = what;
  std::memcpy(packet + 1, &number, sizeof number);
  ::send(kChannel, packet, sizeof packet, MSG_NOSIGNAL);
}

[[noreturn]] void fail(const Error& error) {
  std::string packet(1, channel::kFailed);
  packet += error.describe(Language::zh);
  packet += '\0';
  packet += error.describe(Language::en);
  ::send(kChannel, packet.data(), packet.size(), MSG_NOSIGNAL);
  ::_exit(0);
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

void reset_signals() {
  for (int ignored : {SIGPIPE, SIGHUP, SIGINT}) ::signal(ignored, SIG_DFL);  // by the supervisor
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// Tries argv[0] in every directory of PATH, as a shell does, and returns the errno that says most.
int exec_in_path(const std::vector<char*>& argv, const std::vector<char*>& env) {
  const std::string command = argv[0];
  if (command.find('/') != std::string::npos) {
    ::execve(command.c_str(), argv.data(), env.data());
    if (errno == ENOENT && ::access(command.c_str(), F_OK) == 0)
      return ENOEXEC;  // its interpreter is missing
    return errno;
  }
  std::string_view path;
  for (const char* var : env)
    if (var && std::strncmp(var, "PATH=", 5) == 0) path = var + 5;
  int why = ENOENT;
  while (true) {
    const auto colon = path.find(':');
    std::string candidate(path.substr(0, colon));
    candidate += candidate.empty() ? "./" : "/";
    candidate += command;
    ::execve(candidate.c_str(), argv.data(), env.data());
    if (errno != ENOENT && errno != ENOTDIR) why = errno;
    if (errno == ENOENT && ::access(candidate.c_str(), F_OK) == 0)
      why = ENOEXEC;  // its interpreter is missing
    if (colon == std::string_view::npos) return why;
    path.remove_prefix(colon + 1);
  }
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

[[noreturn]] void become_command(const RankProcess& rank, int report) {
  reset_signals();
  ::setsid();
  limit_by_process(rank.launch, rank.rank);
  const auto& plan = rank.launch.plan;
  auto env = environment(plan, rank.rank, rank.launch.rules);
  std::vector<char*> argv_pointers, env_pointers;
  for (const auto& argument : plan.argv) argv_pointers.push_back(const_cast<char*>(argument.c_str()));
  for (auto& var : env) env_pointers.push_back(var.data());
  argv_pointers.push_back(nullptr);
  env_pointers.push_back(nullptr);
  const int why = exec_in_path(argv_pointers, env_pointers);
  (void)!::write(report, &why, sizeof why);
  ::_exit(why == ENOENT ? 127 : 126);
}

/// Starts the command and tells the supervisor whether it runs.
pid_t start_command(const RankProcess& rank) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) {
    say(channel::kExec, errno);
    ::_exit(0);
  }
  const pid_t pid = ::fork();
  if (pid == 0) become_command(rank, report[1]);
  if (pid < 0) {
    say(channel::kExec, errno);
    ::_exit(0);
  }
  ::close(report[1]);
  int why = 0;
  ssize_t got;
  while ((got = ::read(report[0], &why, sizeof why)) < 0 && errno == EINTR) {
  }
  ::close(report[0]);
  say(channel::kExec, got == sizeof why ? why : 0);
  return pid;
}

/// The life of a pid 1: reap what ends, pass on the wish to stop, and go when the command has gone; the
/// kernel then ends whatever is left of the namespace.
[[noreturn]] void attend(pid_t command, int signals) {
  bool stopping = false, command_ended = false;
  while (true) {
    pollfd waits[] = {{kChannel, POLLIN, 0}, {signals, POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) ::_exit(1);
    if (waits[0].revents) {
      char what = 0;
      const ssize_t got = ::recv(kChannel, &what, 1, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) ::_exit(1);  // the supervisor is gone
      if (got == 1 && what == channel::kStop) {
        stopping = true;
        ::kill(-1, SIGTERM);
        ::kill(-1, SIGCONT);
      }
    }
    if (waits[1].revents) {
      signalfd_siginfo ignored;
      (void)!::read(signals, &ignored, sizeof ignored);
    }
    while (true) {
      int status = 0;
      const pid_t ended = ::waitpid(-1, &status, WNOHANG);
      if (ended == command) {
        say(channel::kExit, status);
        command_ended = true;
      }
      if (command_ended && (!stopping || (ended < 0 && errno == ECHILD))) ::_exit(0);
      if (ended <= 0) break;
    }
  }
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
  if (!ready.ok()) fail(ready.error());
  ::prctl(PR_SET_DUMPABLE, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of uid clears it
  if (::chdir(plan.work_dir.c_str()) != 0)
    fail({Code::not_found,
          {"工作目录不存在或不可进入：" + plan.work_dir,
           "cannot enter the working directory: " + plan.work_dir}});

  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &child, nullptr);
  const int signals = ::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) fail(system_error("signalfd", errno));

  say(channel::kReady);
  char go = 0;
  while (::recv(kChannel, &go, 1, 0) < 0 && errno == EINTR) {
  }
  if (go != channel::kGo) ::_exit(0);
  const pid_t command = start_command(rank);
  // The log is complete when the last writer has gone; this process is none.
  ::dup2(0, 1);
  ::dup2(0, 2);
  attend(command, signals);
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
