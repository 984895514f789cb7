#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

/// Logging: one line an event to standard error (or a file), with time, level and message. Safe from any
/// thread.
namespace lathe::log {

enum class Level { debug, info, warning, error };

/// Lines below `level` are dropped. Called once at start.
void set_level(Level level);
void write(Level level, std::string_view message);
/// Would a line of this level be written?
bool enabled(Level level);
/// Lines that are made already, each with its end, in one go and not between the parts of another line. For
/// who makes too many for `write`.
void write_lines(std::string_view lines);

template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lathe::log
