#pragma once

#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string_view>

#include "http/loop.h"

namespace lathe::http {

/// One request in the access log. Where a text comes from a client, it has no control characters.
struct AccessEntry {
  std::string_view method, path;
  int status = 0;
  std::uint64_t bytes = 0;  ///< of the answer's body
  std::optional<int> grpc_status{};
  std::chrono::nanoseconds taken{};
  std::string_view peer, id;
  std::string_view words;  ///< more, each with a space before it
  bool cut = false;        ///< the connection broke before the answer's end
};

/// The access log's lines of one I/O thread (Loop::local). They are collected and written together: when
/// there are many, a tenth of a second after the first of them, and at the end of the loop. A killed process
/// loses those of the last tenth of a second.
class AccessLog {
 public:
  explicit AccessLog(Loop& loop) : loop_(loop) {}
  ~AccessLog() { flush(); }
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void add(const AccessEntry& entry);
  void flush();

 private:
  class Line;
  void note_second(std::time_t second);

  Loop& loop_;
  std::unique_ptr<char[]> lines_;
  std::size_t size_ = 0;
  std::time_t second_ = 0;
  char stamp_[20] = {};  ///< "2026-01-31T10:20:30" in local time
  bool scheduled_ = false;
};

}  // namespace lathe::http
