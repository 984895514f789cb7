#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lathe {

/// A place below some root: checked, normalised, never absolute. `/a/b`, `a/b`, `a//b/` are the same place;
/// "" is the root itself.
///
/// Refused, naming the field: `.` and `..`, NUL and other control characters (also the invisible ones that
/// turn the direction of text), invalid UTF-8, a name over 255 bytes, a path over 4096 bytes. Text is never
/// decoded here: `%2e%2e` is an ordinary name.
///
/// Unicode: a name is normalised to NFC, so that the two spellings of `é` are one file, whichever a client
/// sends (macOS sends the decomposed one). Files that a job itself made under a decomposed name stay
/// reachable: where nothing has the normalised name, Directory looks for the spelling that was sent.
class Path {
 public:
  Path() = default;
  /// `field` is the name under which the caller sent the text; errors about this path carry it.
  static Result<Path> parse(std::string_view text, std::string_view field);

  /// `a/b`, without a leading or trailing slash; "" is the root.
  const std::string& text() const { return text_; }
  /// As sent, where that differs from `text` by Unicode normalisation; else "".
  const std::string& spelling() const { return spelling_; }
  const std::string& field() const { return field_; }
  bool is_root() const { return text_.empty(); }
  /// The last component; "" for the root.
  std::string_view name() const;
  /// The path without its last component; the root's parent is the root.
  Path parent() const;
  /// Components in the path; 0 for the root.
  std::size_t depth() const;
  /// `below` seen from this path. It may come out longer than 4096 bytes; the kernel then refuses it.
  Path operator/(const Path& below) const;
  /// True for the path itself and everything below it.
  bool contains(const Path& other) const;

  bool operator==(const Path& other) const { return text_ == other.text_; }
  auto operator<=>(const Path& other) const { return text_ <=> other.text_; }

 private:
  std::string text_;
  std::string spelling_;
  std::string field_ = "path";
};

}  // namespace lathe
