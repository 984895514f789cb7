// The first program of every container: pid 1. It is linked statically and mounted into the container, since
// an image need not hold anything but the command. It takes its orders from the run's supervisor, and ends
// with him: without him it runs nothing. Little of the project is in it.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "engines/docker/init/setup.h"
#include "engines/supervised/channel.h"
#include "engines/supervised/syscall_filter.h"

extern char** environ;

namespace {

using namespace lathe::engines;

constexpr int kChannel = 3, kLock = 4;

void say(const void* bytes, std::size_t size) {
  ::send(kChannel, bytes, size, MSG_NOSIGNAL);
}
void say(char what) {
  say(&what, 1);
}
void say(char what, int number) {
  char packet[1 + sizeof number];
  packet[0] = what;
  std::memcpy(packet + 1, &number, sizeof number);
  say(packet, sizeof packet);
}

[[noreturn]] void fail(const std::string& zh, const std::string& en) {
  std::string packet(1, channel::kFailed);
  packet += zh;
  packet += '\0';
  packet += en;
  say(packet.data(), packet.size());
  ::_exit(0);
}

struct Setup {
  std::vector<std::string> argv, env, defaults;
  std::string work_dir;
  struct Mounted {
    std::string target, identity;
  };
  std::vector<Mounted> mounts;
  std::vector<std::string> devices;
};

/// The supervisor, or nobody: then this container is nobody's, and ends.
void find_supervisor() {
  const int made = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, container::kChannel);
  if (made < 0 || ::connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    ::_exit(1);
  const int high = ::fcntl(made, F_DUPFD_CLOEXEC, 100);
  ::dup3(high, kChannel, O_CLOEXEC);
}

std::string receive_setup() {
  char what = 0;
  iovec piece{&what, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(container::kDescriptors * sizeof(int))];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got;
  while ((got = ::recvmsg(kChannel, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (got != 1 || what != channel::kSetup || !header || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(container::kDescriptors * sizeof(int)))
    ::_exit(1);
  int fds[container::kDescriptors];
  std::memcpy(fds, CMSG_DATA(header), sizeof fds);
  for (int& fd : fds) fd = ::fcntl(fd, F_DUPFD_CLOEXEC, 100);
  const int input = ::fcntl(::open("/dev/null", O_RDONLY | O_CLOEXEC), F_DUPFD_CLOEXEC, 100);
  ::dup2(input, 0);
  ::dup2(fds[1], 1);
  ::dup2(fds[1], 2);
  ::dup3(fds[2], kLock, O_CLOEXEC);
  std::string text;
  char buffer[64 * 1024];
  for (off_t at = 0; (got = ::pread(fds[0], buffer, sizeof buffer, at)) > 0; at += got)
    text.append(buffer, static_cast<std::size_t>(got));
  ::syscall(SYS_close_range, kLock + 1, ~0U, 0);
  return text;
}

class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}
  std::string next() {
    const auto end = rest_.find('\0');
    if (end == std::string_view::npos) ::_exit(1);
    std::string out(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return out;
  }
  std::vector<std::string> list() {
    std::vector<std::string> out(std::strtoul(next().c_str(), nullptr, 10));
    for (auto& word : out) word = next();
    return out;
  }

 private:
  std::string_view rest_;
};

Setup read_setup(std::string_view text) {
  Words words(text);
  Setup out;
  out.argv = words.list();
  out.env = words.list();
  out.defaults = words.list();
  out.work_dir = words.next();
  out.mounts.resize(std::strtoul(words.next().c_str(), nullptr, 10));
  for (auto& mount : out.mounts) {
    mount.target = words.next();
    mount.identity = words.next();
  }
  out.devices = words.list();
  return out;
}

/// The daemon was given paths, which somebody may have changed between the supervisor's look and the
/// daemon's.
void check_view(const Setup& setup) {
  for (const auto& [target, identity] : setup.mounts) {
    struct stat info {};
    if (::stat(target.c_str(), &info) != 0)
      fail("挂载失败：" + target, "is not mounted in the container: " + target);
    char found[64];
    std::snprintf(found, sizeof found, "%u:%u:%lu", major(info.st_dev), minor(info.st_dev),
                  static_cast<unsigned long>(info.st_ino));
    if (identity != found)
      fail("挂载的目录在启动过程中被替换：" + target,
           "what was to be mounted was replaced while the run was being started: " + target);
  }
  for (const auto& device : setup.devices)
    if (::access(device.c_str(), F_OK) != 0)
      fail("容器中没有分配到的加速卡设备 " + device + "：请安装并配置 nvidia-container-toolkit",
           "the daemon gave the container no " + device +
               ": install and configure the NVIDIA container toolkit for it");
  if (::chdir(setup.work_dir.c_str()) != 0)
    fail("工作目录不存在或不可进入：" + setup.work_dir,
         "cannot enter the working directory: " + setup.work_dir);
}

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

std::vector<std::string> environment(const Setup& setup) {
  std::vector<std::string> out;
  const auto find = [&](std::string_view name) -> std::string* {
    for (auto& each : out)
      if (name_of(each) == name) return &each;
    return nullptr;
  };
  for (char** each = environ; *each; ++each)
    if (name_of(*each) != "HOME") out.emplace_back(*each);  // the daemon's guess for a user it does not know
  for (const auto& each : setup.env) {
    if (auto* known = find(name_of(each))) {
      *known = each;
    } else {
      out.push_back(each);
    }
  }
  for (const auto& each : setup.defaults)
    if (!find(name_of(each))) out.push_back(each);
  return out;
}

/// Tries argv[0] in every directory of PATH, as a shell does, and returns the errno that says most.
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

[[noreturn]] void become_command(const Setup& setup, int report) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  auto argv = setup.argv;
  auto env = environment(setup);
  std::vector<char*> argv_pointers, env_pointers;
  for (auto& argument : argv) argv_pointers.push_back(argument.data());
  for (auto& variable : env) env_pointers.push_back(variable.data());
  argv_pointers.push_back(nullptr);
  env_pointers.push_back(nullptr);
  const int why = exec_in_path(argv_pointers, env_pointers);
  (void)!::write(report, &why, sizeof why);
  ::_exit(why == ENOENT ? 127 : 126);
}

/// Starts the command and tells the supervisor whether it runs.
pid_t start_command(const Setup& setup) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) {
    say(channel::kExec, errno);
    return -1;
  }
  const pid_t pid = ::fork();
  if (pid == 0) become_command(setup, report[1]);
  int why = pid < 0 ? errno : 0;
  ::close(report[1]);
  int said = 0;
  ssize_t got = 0;
  while (pid > 0 && (got = ::read(report[0], &said, sizeof said)) < 0 && errno == EINTR) {
  }
  ::close(report[0]);
  if (got == sizeof said) why = said;
  say(channel::kExec, why);
  return pid;
}

/// The container's accounts go with its last process, which is this one: they are read before.
[[noreturn]] void leave() {
  say(channel::kDone);
  char what = 0;
  while (true) {
    const ssize_t got = ::recv(kChannel, &what, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || what == channel::kBye) ::_exit(0);
  }
}

/// The life of a pid 1: reap what ends, pass on the wish to stop, and go when the command has gone; the
/// kernel then ends whatever is left of the container.
[[noreturn]] void attend(pid_t command, int signals) {
  if (command < 0) leave();
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
      if (command_ended && (!stopping || (ended < 0 && errno == ECHILD))) leave();
      if (ended <= 0) break;
    }
  }
}

}  // namespace

int main() {
  // The command runs as the same user, and must not look into or trace this process.
  ::prctl(PR_SET_DUMPABLE, 0);
  find_supervisor();
  const Setup setup = read_setup(receive_setup());
  ::umask(022);
  const struct rlimit no_core { 0, 0 };
  ::setrlimit(RLIMIT_CORE, &no_core);
  check_view(setup);
  // Beside the daemon's own profile, which may allow namespaces (Podman's does).
  if (install_syscall_filter() != 0) fail("无法安装系统调用过滤器", "cannot install the system call filter");

  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_SETMASK, &child, nullptr);
  const int signals = ::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) fail("signalfd 失败", "signalfd failed");

  say(channel::kReady);
  char go = 0;
  while (::recv(kChannel, &go, 1, 0) < 0 && errno == EINTR) {
  }
  if (go != channel::kGo) ::_exit(0);
  const pid_t command = start_command(setup);
  // The log is complete when the last writer has gone; this process is none.
  ::dup2(0, 1);
  ::dup2(0, 2);
  attend(command, signals);
}
