#include "base/log.h"

#include <poll.h>
#include <spdlog/details/console_globals.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace lathe::log {

namespace {

spdlog::logger& logger() {
  static auto instance = [] {
    auto made = spdlog::stderr_color_mt("lathe");
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum spd(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void set_level(Level level) {
  logger().set_level(spd(level));
}
void write(Level level, std::string_view message) {
  logger().log(spd(level), "{}", message);
}
bool enabled(Level level) {
  return logger().should_log(spd(level));
}

void write_lines(std::string_view lines) {
  // The sink's own: standard error is written to by nobody else, and without a buffer.
  const std::lock_guard lock(spdlog::details::console_mutex::mutex());
  while (!lines.empty()) {
    const ssize_t wrote = ::write(STDERR_FILENO, lines.data(), lines.size());
    if (wrote > 0) {
      lines.remove_prefix(static_cast<std::size_t>(wrote));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
      if (::poll(&ready, 1, -1) < 0 && errno != EINTR) return;
    } else if (errno != EINTR) {
      return;  // there is nobody to tell it to
    }
  }
}

}  // namespace lathe::log
