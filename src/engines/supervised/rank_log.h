#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace lathe::engines {

/// Writes what a rank prints to its log, as it comes, up to a limit; of what comes later the last 64 KiB are
/// kept and written at the end, with a line that says how much is missing in between. Errors of the disk cost
/// log bytes, never the job.
class RankLog {
 public:
  RankLog(Fd file, std::int64_t limit);
  void append(std::string_view bytes);
  /// Writes the rest; durable when it returns.
  void finish();

 private:
  void write_out(std::string_view bytes);
  Fd file_;
  std::int64_t room_;
  bool limited_;
  std::int64_t beyond_ = 0;  ///< bytes that came after the limit was reached
  std::int64_t failed_ = 0;  ///< bytes the disk did not take
  std::string tail_;
};

}  // namespace lathe::engines
