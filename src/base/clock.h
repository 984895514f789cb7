#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace lathe {

/// A point in time to the millisecond, in UTC. Zones exist only where a time is shown.
using Time = std::chrono::sys_time<std::chrono::milliseconds>;
using Duration = std::chrono::milliseconds;

/// Where the present comes from, so that decisions can be tested at any moment.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
};

class SystemClock final : public Clock {
 public:
  Time now() const override;
};

/// Stands still until it is told otherwise. Not for several threads.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(Time start = Time{}) : now_(start) {}
  Time now() const override { return now_; }
  void advance(Duration by) { now_ += by; }
  void set(Time to) { now_ = to; }

 private:
  Time now_;
};

/// `yyyy-MM-dd HH:mm:ss` in the process's time zone (TZ), the form of the documented API.
std::string format_local(Time time);
std::optional<Time> parse_local(std::string_view text);
/// `2026-01-02T03:04:05.678Z` (RFC 3339), the form of the project's own API.
std::string format_iso(Time time);
std::optional<Time> parse_iso(std::string_view text);

/// A duration as the documented API shows it: `50秒`, `54分41秒`, `2小时3分4秒`.
std::string format_duration(Duration duration);

}  // namespace lathe
