#include "gateway/usage_scanner.h"

#include <charconv>

namespace lathe::gateway {

namespace {

// Quotes inside a JSON string are escaped, so these bytes are a member's name (or a whole string, which no
// colon follows).
constexpr std::string_view kName = "\"usage\"";
constexpr std::size_t kMaxObject = 2048;

std::optional<std::uint64_t> number_after(std::string_view object, std::string_view name) {
  const auto at = object.find(name);
  if (at == std::string_view::npos) return std::nullopt;
  object.remove_prefix(at + name.size());
  const auto digit = object.find_first_not_of(" \t\r\n:");
  if (digit == std::string_view::npos) return std::nullopt;
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(object.data() + digit, object.data() + object.size(), out);
  if (error != std::errc{}) return std::nullopt;
  return out;
}

}  // namespace

void UsageScanner::feed(std::string_view piece) {
  while (!piece.empty()) {
    if (capturing_) {
      if (capture(piece)) read();
      continue;
    }
    // The name may lie across the pieces' border.
    if (!kept_.empty()) {
      const std::size_t before = kept_.size();
      kept_.append(piece.substr(0, kName.size() - 1));
      const auto at = kept_.find(kName);
      if (at != std::string::npos) {
        piece.remove_prefix(at + kName.size() - before);
        kept_.clear();
        capturing_ = true;
        depth_ = 0;
        continue;
      }
      if (piece.size() < kName.size() - 1) return keep_end(std::string(kept_));
      kept_.clear();
    }
    if (const auto at = piece.find(kName); at != std::string_view::npos) {
      piece.remove_prefix(at + kName.size());
      capturing_ = true;
      depth_ = 0;
      continue;
    }
    return keep_end(piece);
  }
}

void UsageScanner::keep_end(std::string_view text) {
  const auto tail = text.substr(text.size() - std::min(text.size(), kName.size() - 1));
  const auto quote = tail.find('"');
  kept_ = quote == std::string_view::npos ? std::string_view() : tail.substr(quote);
}

/// True at the object's end; gives up on what is none.
bool UsageScanner::capture(std::string_view& piece) {
  while (!piece.empty()) {
    const char c = piece.front();
    if (depth_ == 0 && (c == ' ' || c == '\t' || c == '\r' || c == '\n')) {
      piece.remove_prefix(1);
      continue;
    }
    if (depth_ == 0) {
      const bool in_order = kept_.empty() ? c == ':' : c == '{';
      if (!in_order) {
        capturing_ = false;
        kept_.clear();
        return false;
      }
    }
    piece.remove_prefix(1);
    kept_ += c;
    if (c == '{') ++depth_;
    if (c == '}' && --depth_ == 0) return true;
    if (kept_.size() > kMaxObject) {
      capturing_ = false;
      kept_.clear();
      return false;
    }
  }
  return false;
}

void UsageScanner::read() {
  const auto prompt = number_after(kept_, "\"prompt_tokens\"");
  const auto completion = number_after(kept_, "\"completion_tokens\"");
  if (prompt || completion) found_ = Usage{prompt.value_or(0), completion.value_or(0)};
  capturing_ = false;
  kept_.clear();
}

}  // namespace lathe::gateway
