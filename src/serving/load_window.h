#pragma once

#include <deque>
#include <optional>

#include "base/clock.h"

namespace lathe::serving {

/// A figure over the recent past, as means over adjoining spans of time.
class LoadWindow {
 public:
  /// The mean of the figure over the `span` that ended at `at`. Spans come in order and do not overlap.
  void add(Time at, Duration span, double mean) {
    if (span <= Duration::zero()) return;
    spans_.push_back({at, span, mean});
    while (spans_.front().end + kKept < at) spans_.pop_front();
  }

  /// The mean over the last `window` before `now`, or over as much of it as is known: a figure that is
  /// watched for 4 s has a mean over 60 s from those 4. Nothing if nothing of it is known.
  std::optional<double> mean(Time now, Duration window) const {
    double sum = 0, known = 0;
    for (auto it = spans_.rbegin(); it != spans_.rend() && it->end > now - window; ++it) {
      const Time begin = std::max(it->end - it->span, now - window);
      const auto part = static_cast<double>((it->end - begin).count());
      sum += it->mean * part;
      known += part;
    }
    if (known == 0) return std::nullopt;
    return sum / known;
  }

  void clear() { spans_.clear(); }

 private:
  static constexpr Duration kKept{std::chrono::hours{1}};
  struct Span {
    Time end;
    Duration span;
    double mean;
  };
  std::deque<Span> spans_;
};

}  // namespace lathe::serving
