// The first program of every container: pid 1. It is linked statically and mounted into the container, since
// an image need not hold anything but the command. It takes its orders from the run's supervisor, and ends
// with him: without him it runs nothing. Little of the project is in it.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
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
#include "engines/supervised/first_process.h"
#include "engines/supervised/syscall_filter.h"

extern char** environ;

namespace {

using namespace lathe::engines;
using namespace lathe::engines::first_process;

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

int become_command(const Setup& setup) {
  auto argv = setup.argv;
  auto env = environment(setup);
  std::vector<char*> argv_pointers, env_pointers;
  for (auto& argument : argv) argv_pointers.push_back(argument.data());
  for (auto& variable : env) env_pointers.push_back(variable.data());
  argv_pointers.push_back(nullptr);
  env_pointers.push_back(nullptr);
  return exec_in_path(argv_pointers, env_pointers);
}

/// The container's accounts go with its last process, which is this one: they are read before.
void leave() {
  say(channel::kDone);
  char what = 0;
  while (true) {
    const ssize_t got = ::recv(kChannel, &what, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || what == channel::kBye) return;
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

  const int signals = watch_children();
  if (signals < 0) fail("signalfd 失败", "signalfd failed");
  live(
      signals, [&setup] { return become_command(setup); }, leave);
}
