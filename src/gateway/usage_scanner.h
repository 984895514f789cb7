#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lathe::gateway {

struct Usage {
  std::uint64_t prompt_tokens = 0, completion_tokens = 0;
};

/// Looks for the `usage` object of OpenAI's API in a JSON or event-stream body that passes by in pieces. The
/// last one counts: a stream may tell in every chunk how far it is. Keeps some hundred bytes at most.
class UsageScanner {
 public:
  void feed(std::string_view piece);
  const std::optional<Usage>& found() const { return found_; }

 private:
  void keep_end(std::string_view text);
  bool capture(std::string_view& piece);
  void read();

  std::string kept_;  ///< the end of the last piece where it might begin the name, or the object so far
  bool capturing_ = false;
  int depth_ = 0;
  std::optional<Usage> found_;
};

}  // namespace lathe::gateway
