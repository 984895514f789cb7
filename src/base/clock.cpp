#include "base/clock.h"

#include <fmt/format.h>

#include <ctime>

namespace lathe {

namespace {

std::string format_tm(const std::tm& tm, char separator) {
  return fmt::format("{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                     separator, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/// Reads `yyyy-MM-dd?HH:mm:ss` and leaves the rest in `text`.
std::optional<std::tm> read_tm(std::string_view& text, char separator) {
  constexpr std::string_view kShape = "dddd-dd-dd?dd:dd:dd";
  if (text.size() < kShape.size()) return std::nullopt;
  for (std::size_t i = 0; i < kShape.size(); ++i) {
    const char want = kShape[i] == '?' ? separator : kShape[i];
    if (want == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != want) return std::nullopt;
  }
  auto number = [&](std::size_t at, std::size_t count) {
    int value = 0;
    for (std::size_t i = 0; i < count; ++i) value = value * 10 + (text[at + i] - '0');
    return value;
  };
  std::tm tm{};
  tm.tm_year = number(0, 4) - 1900;
  tm.tm_mon = number(5, 2) - 1;
  tm.tm_mday = number(8, 2);
  tm.tm_hour = number(11, 2);
  tm.tm_min = number(14, 2);
  tm.tm_sec = number(17, 2);
  const bool in_range = tm.tm_mon >= 0 && tm.tm_mon < 12 && tm.tm_mday >= 1 && tm.tm_mday <= 31 &&
                        tm.tm_hour < 24 && tm.tm_min < 60 && tm.tm_sec < 60;
  if (!in_range) return std::nullopt;
  text.remove_prefix(kShape.size());
  return tm;
}

}  // namespace

Time SystemClock::now() const {
  return std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

std::string format_local(Time time) {
  const std::time_t seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  std::tm tm{};
  localtime_r(&seconds, &tm);
  return format_tm(tm, ' ');
}

std::optional<Time> parse_local(std::string_view text) {
  auto tm = read_tm(text, ' ');
  if (!tm || !text.empty()) return std::nullopt;
  const int day = tm->tm_mday;
  tm->tm_isdst = -1;
  const std::time_t seconds = std::mktime(&*tm);
  if (tm->tm_mday != day) return std::nullopt;  // 31 February and the like
  return Time{std::chrono::seconds{seconds}};
}

std::string format_iso(Time time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const std::time_t seconds = whole.time_since_epoch().count();
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  return fmt::format("{}.{:03}Z", format_tm(tm, 'T'), (time - whole).count());
}

std::optional<Time> parse_iso(std::string_view text) {
  auto tm = read_tm(text, 'T');
  if (!tm) return std::nullopt;
  Duration fraction{0};
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    int digits = 0, value = 0;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1), ++digits)
      if (digits < 3) value = value * 10 + (text.front() - '0');
    if (digits == 0) return std::nullopt;
    for (; digits < 3; ++digits) value *= 10;
    fraction = Duration{value};
  }
  if (text != "Z") return std::nullopt;
  const int day = tm->tm_mday;
  const std::time_t seconds = timegm(&*tm);
  if (tm->tm_mday != day) return std::nullopt;
  return Time{std::chrono::seconds{seconds}} + fraction;
}

std::string format_duration(Duration duration) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration).count();
  const auto h = seconds / 3600, m = seconds / 60 % 60, s = seconds % 60;
  if (h > 0) return fmt::format("{}小时{}分{}秒", h, m, s);
  if (m > 0) return fmt::format("{}分{}秒", m, s);
  return fmt::format("{}秒", s);
}

}  // namespace lathe
