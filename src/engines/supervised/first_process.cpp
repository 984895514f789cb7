#include "engines/supervised/first_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "engines/supervised/channel.h"

namespace lathe::engines::first_process {

namespace {

[[noreturn]] void run_command(const std::function<int()>& become_command, int report) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  const int why = become_command();
  (void)!::write(report, &why, sizeof why);
  ::_exit(why == ENOENT ? 127 : 126);
}

/// Starts the command and tells the supervisor whether it runs; -1 if there is no process.
pid_t start_command(const std::function<int()>& become_command) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) {
    say(channel::kExec, errno);
    return -1;
  }
  const pid_t pid = ::fork();
  if (pid == 0) run_command(become_command, report[1]);
  if (pid < 0) {
    say(channel::kExec, errno);
    return -1;
  }
  ::close(report[1]);
  int why = 0;
  ssize_t got = 0;
  while ((got = ::read(report[0], &why, sizeof why)) < 0 && errno == EINTR) {
  }
  ::close(report[0]);
  say(channel::kExec, got == sizeof why ? why : 0);
  return pid;
}

[[noreturn]] void attend(pid_t command, int signals, void (*leave)()) {
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
      if (command_ended && (!stopping || (ended < 0 && errno == ECHILD))) {
        leave();
        ::_exit(0);
      }
      if (ended <= 0) break;
    }
  }
}

void send_packet(const void* bytes, std::size_t size) {
  ::send(kChannel, bytes, size, MSG_NOSIGNAL);
}

}  // namespace

void say(char what) {
  send_packet(&what, 1);
}

void say(char what, int number) {
  char packet[1 + sizeof number];
  packet[0] = what;
  std::memcpy(packet + 1, &number, sizeof number);
  send_packet(packet, sizeof packet);
}

void fail(const std::string& zh, const std::string& en) {
  std::string packet(1, channel::kFailed);
  packet += zh;
  packet += '\0';
  packet += en;
  send_packet(packet.data(), packet.size());
  ::_exit(0);
}

int exec_in_path(const std::vector<char*>& argv, const std::vector<char*>& env) {
  const std::string command = argv[0];
  const auto refused = [](const std::string& path) {
    // Its interpreter is missing.
    return errno == ENOENT && ::access(path.c_str(), F_OK) == 0 ? ENOEXEC : errno;
  };
  if (command.find('/') != std::string::npos) {
    ::execve(command.c_str(), argv.data(), env.data());
    return refused(command);
  }
  std::string_view path;
  for (const char* variable : env)
    if (variable && std::strncmp(variable, "PATH=", 5) == 0) path = variable + 5;
  int why = ENOENT;
  while (true) {
    const auto colon = path.find(':');
    std::string candidate(path.substr(0, colon));
    candidate += candidate.empty() ? "./" : "/";
    candidate += command;
    ::execve(candidate.c_str(), argv.data(), env.data());
    if (const int reason = refused(candidate); reason != ENOENT && reason != ENOTDIR) why = reason;
    if (colon == std::string_view::npos) return why;
    path.remove_prefix(colon + 1);
  }
}

int watch_children() {
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &child, nullptr);
  return ::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

void live(int signals, const std::function<int()>& become_command, void (*leave)()) {
  say(channel::kReady);
  char go = 0;
  while (::recv(kChannel, &go, 1, 0) < 0 && errno == EINTR) {
  }
  if (go != channel::kGo) ::_exit(0);
  const pid_t command = start_command(become_command);
  // The log is complete when the last writer has gone; this process is none.
  ::dup2(0, 1);
  ::dup2(0, 2);
  if (command > 0) attend(command, signals, leave);
  leave();
  ::_exit(0);
}

}  // namespace lathe::engines::first_process
