#pragma once

#include <functional>
#include <string>

#include "http/message.h"

namespace lathe::jobs {

struct LogRequest {
  std::string path;
  std::int64_t tail_lines = -1;  ///< -1: from its beginning
  bool follow = false;
  bool event_stream = false;  ///< server-sent events instead of plain text
  /// True once the run is over: what is in the file then is all there will be. Called about every second.
  std::function<bool()> over;
};

/// A body that sends a log as it is and, if asked, as it grows, within milliseconds of each write (inotify).
/// Ends when the job is over, the client has left or the server drains. A log that does not exist yet is
/// waited for when following, else empty.
http::StreamBody stream_log(LogRequest request);

}  // namespace lathe::jobs
