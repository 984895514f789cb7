#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>

#include "app/app.h"
#include "app/commands/commands.h"
#include "base/log.h"

namespace lathe::app {

namespace {

/// What the flags said; empty: they did not.
struct Flags {
  std::string config, data, listen, log_level, time_zone, ready_file, docker_socket;
};

int stop_event = -1;

/// The first signal asks for an orderly end, the second for one at once: nothing is lost by either.
void on_stop_signal(int) {
  static volatile std::sig_atomic_t asked = 0;
  if (asked) ::_exit(130);
  asked = 1;
  const std::uint64_t one = 1;
  if (::write(stop_event, &one, sizeof one) < 0) ::_exit(130);
}

void ignore_signal(int) {}

/// Handlers and not a mask or SIG_IGN: those would be inherited by every job that the server starts.
void catch_signals() {
  stop_event = ::eventfd(0, EFD_CLOEXEC);
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = on_stop_signal;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  action.sa_handler = ignore_signal;
  ::sigaction(SIGPIPE, &action, nullptr);
  ::sigaction(SIGHUP, &action, nullptr);
}

void wait_for_stop() {
  // Not a read: the thread sanitizer keeps a signal back until that returns.
  pollfd event{stop_event, POLLIN, 0};
  while (::poll(&event, 1, -1) < 0 && errno == EINTR) {
  }
}

void raise_file_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

/// Many threads that each rarely allocate would otherwise keep an arena each.
void keep_memory_small() {
  ::mallopt(M_ARENA_MAX, 4);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 20);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

Result<void> set_time_zone(const std::string& name) {
  if (name.empty()) return {};
  const bool plain = name.find("..") == std::string::npos && name.front() != '/';
  if (!plain || (name != "UTC" && !std::filesystem::exists("/usr/share/zoneinfo/" + name)))
    return invalid_field("timeZone", {"没有这个时区：" + name, "no such time zone: " + name});
  ::setenv("TZ", name.c_str(), 1);
  ::tzset();
  return {};
}

log::Level level_of(const std::string& name) {
  if (name == "debug") return log::Level::debug;
  if (name == "warning") return log::Level::warning;
  if (name == "error") return log::Level::error;
  return log::Level::info;
}

/// Whoever waits for the file finds it whole.
Result<void> write_ready_file(const std::string& path, const std::string& url) {
  const std::string part = path + ".part";
  {
    std::ofstream file(part);
    file << url << '\n';
    if (!file.flush()) return system_error("write " + part, errno);
  }
  if (std::rename(part.c_str(), path.c_str()) != 0) return system_error("rename " + part, errno);
  return {};
}

Result<Config> configure(const Flags& flags) {
  Config config;
  if (!flags.config.empty()) config = TRY(load_config(flags.config));
  if (!flags.data.empty()) config.data = flags.data;
  if (!flags.listen.empty()) config.listen = flags.listen;
  if (!flags.log_level.empty()) config.log.level = flags.log_level;
  if (!flags.time_zone.empty()) config.time_zone = flags.time_zone;
  if (!flags.docker_socket.empty()) config.docker.socket = flags.docker_socket;
  TRY(set_time_zone(config.time_zone));
  return config;
}

Result<void> serve(const Flags& flags) {
  const Config config = TRY(configure(flags));
  log::set_level(level_of(config.log.level));
  keep_memory_small();
  raise_file_limit();
  catch_signals();
  const std::unique_ptr<App> app = TRY(App::open(config));
  TRY(app->start());
  std::printf("%s\n", app->url().c_str());
  std::fflush(stdout);
  if (!flags.ready_file.empty()) TRY(write_ready_file(flags.ready_file, app->url()));
  wait_for_stop();
  app->drain();
  return {};
}

}  // namespace

void add_serve(CLI::App& root, Chosen& chosen) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = root.add_subcommand("serve", "Run the server");
  command->add_option("--config", flags->config,
                      "Configuration file (JSON with comments); flags win over it");
  command->add_option("--data", flags->data, "Data directory, made where absent");
  command->add_option("--listen", flags->listen,
                      "host:port, 127.0.0.1:8080 if not said; port 0: any free one");
  command->add_option("--log-level", flags->log_level)
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  command->add_option("--time-zone", flags->time_zone, "IANA name, such as Asia/Shanghai");
  command->add_option(
      "--docker-socket", flags->docker_socket,
      "Socket of the Docker or Podman that runs images, or none; if not said: the usual one, if any");
  command->add_option("--ready-file", flags->ready_file, "Written with the server's URL once it answers");
  command->callback([flags, &chosen] {
    chosen = [flags] {
      const auto ended = serve(*flags);
      if (ended.ok()) return 0;
      log::error("{}", ended.error().describe(Language::en));
      return 1;
    };
  });
}

}  // namespace lathe::app
