#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "base/directory.h"
#include "base/fd.h"

namespace lathe {

namespace {

using Steady = std::chrono::steady_clock;

std::vector<std::string> default_environment() {
  std::vector<std::string> out;
  for (const char* name : {"PATH", "HOME", "LANG", "TZ"})
    if (const char* value = std::getenv(name)) out.push_back(std::string(name) + "=" + value);
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (auto& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

struct Pipe {
  Fd read, write;
  static Result<Pipe> make() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return system_error("pipe", errno);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return Pipe{Fd(ends[0]), Fd(ends[1])};
  }
};

/// A file in memory, so that no writer is needed while the program runs.
Result<Fd> input_file(const std::string& text) {
  if (text.empty()) return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Fd file(::memfd_create("input", MFD_CLOEXEC));
  if (!file) return system_error("memfd_create", errno);
  TRY(write_all(file.get(), text));
  ::lseek(file.get(), 0, SEEK_SET);
  return file;
}

/// Posix_spawn's settings, which have to be given back.
class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawnattr_setflags(&attributes,
                               POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
};

/// Reads what there is; false at the end of the stream.
bool drain(int fd, std::string& into, std::size_t limit, bool& truncated) {
  char buffer[64 * 1024];
  while (true) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    const auto fits = std::min(limit - into.size(), static_cast<std::size_t>(got));
    into.append(buffer, fits);
    truncated = truncated || fits < static_cast<std::size_t>(got);
  }
}

Error timed_out(const Command& command, const CommandOutcome& outcome) {
  const std::string& said = outcome.errors.empty() ? outcome.output : outcome.errors;
  const std::string words = said.substr(said.size() > 200 ? said.size() - 200 : 0);
  const std::string seconds = std::to_string(command.timeout.count() / 1000);
  return {Code::deadline_exceeded,
          {command.argv[0] + " 在 " + seconds + " 秒内没有结束：" + words,
           command.argv[0] + " did not end within " + seconds + " s: " + words}};
}

}  // namespace

Result<CommandOutcome> run_command(const Command& command) {
  if (command.argv.empty()) return Error{Code::internal, {"缺少命令", "no command"}};
  auto argv = command.argv;
  auto env = command.env ? *command.env : default_environment();
  const Fd input = TRY(input_file(command.input));
  Pipe output = TRY(Pipe::make());
  Pipe errors = TRY(Pipe::make());

  SpawnSettings settings;
  if (!command.work_dir.empty())
    ::posix_spawn_file_actions_addchdir_np(&settings.files, command.work_dir.c_str());
  ::posix_spawn_file_actions_adddup2(&settings.files, input.get(), 0);
  ::posix_spawn_file_actions_adddup2(&settings.files, output.write.get(), 1);
  ::posix_spawn_file_actions_adddup2(&settings.files, errors.write.get(), 2);
  pid_t pid = 0;
  const int why = ::posix_spawnp(&pid, argv[0].c_str(), &settings.files, &settings.attributes,
                                 pointers(argv).data(), pointers(env).data());
  if (why == ENOENT) return not_found({"程序", "program"}, argv[0]);
  if (why != 0) return system_error("start " + argv[0], why);
  output.write.reset();
  errors.write.reset();
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));

  CommandOutcome outcome;
  const auto deadline = Steady::now() + command.timeout;
  bool late = false;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Steady::now()).count();
    if (left <= 0) {
      late = true;
      break;
    }
    // Its end is what counts, not that of the streams: it may leave others behind who hold them.
    pollfd waits[] = {
        {process.get(), POLLIN, 0}, {output.read.get(), POLLIN, 0}, {errors.read.get(), POLLIN, 0}};
    ::poll(waits, 3, static_cast<int>(std::min<std::int64_t>(left, 3'600'000)));
    if (waits[1].revents && !drain(output.read.get(), outcome.output, command.max_output, outcome.truncated))
      output.read.reset();
    if (waits[2].revents && !drain(errors.read.get(), outcome.errors, command.max_output, outcome.truncated))
      errors.read.reset();
    if (waits[0].revents) break;
  }
  if (late) ::kill(-pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (output.read) drain(output.read.get(), outcome.output, command.max_output, outcome.truncated);
  if (errors.read) drain(errors.read.get(), outcome.errors, command.max_output, outcome.truncated);
  if (late) return timed_out(command, outcome);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

}  // namespace lathe
