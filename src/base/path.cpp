#include "base/path.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

namespace lathe {

namespace {

constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxPath = 4096;

bool is_refused(utf8proc_int32_t point) {
  if (utf8proc_category(point) == UTF8PROC_CATEGORY_CC) return true;
  if (point == 0x2028 || point == 0x2029) return true;  // line and paragraph separator
  return point == 0x200E || point == 0x200F || (point >= 0x202A && point <= 0x202E) ||
         (point >= 0x2066 && point <= 0x2069);
}

std::optional<Text> wrong_characters(std::string_view text) {
  const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto left = static_cast<utf8proc_ssize_t>(text.size());
  while (left > 0) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(at, left, &point);
    if (length <= 0) return Text{"不是合法的 UTF-8", "is not valid UTF-8"};
    if (is_refused(point)) return Text{"不能含有控制字符", "must not contain control characters"};
    at += length;
    left -= length;
  }
  return std::nullopt;
}

bool is_ascii(std::string_view text) {
  for (char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

std::string to_nfc(std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  utf8proc_uint8_t* out = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &out,
                                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0) return std::string(text);
  std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owned(out, std::free);
  return {reinterpret_cast<const char*>(out), static_cast<std::size_t>(length)};
}

std::optional<Text> wrong_name(std::string_view name) {
  if (name == "." || name == "..") return Text{"路径不能含有 . 或 ..", "must not contain . or .."};
  if (name.size() > kMaxName)
    return Text{"路径中的一级名称超过 255 字节", "has a component longer than 255 bytes"};
  return std::nullopt;
}

}  // namespace

Result<Path> Path::parse(std::string_view text, std::string_view field) {
  auto refuse = [&](Text why) { return invalid_field(std::string(field), std::move(why)); };
  if (text.size() > kMaxPath) return refuse({"路径超过 4096 字节", "is longer than 4096 bytes"});
  if (auto wrong = wrong_characters(text)) return refuse(*wrong);
  Path path;
  path.field_ = field;
  while (!text.empty()) {
    const auto slash = text.find('/');
    const std::string_view part = text.substr(0, slash);
    text.remove_prefix(slash == std::string_view::npos ? text.size() : slash + 1);
    if (part.empty()) continue;
    const std::string name = to_nfc(part);
    if (auto wrong = wrong_name(name)) return refuse(*wrong);
    if (auto wrong = wrong_name(part)) return refuse(*wrong);
    if (!path.text_.empty()) path.text_ += '/', path.spelling_ += '/';
    path.text_ += name;
    path.spelling_ += part;
  }
  if (path.text_.size() > kMaxPath) return refuse({"路径超过 4096 字节", "is longer than 4096 bytes"});
  if (path.spelling_ == path.text_) path.spelling_.clear();
  return path;
}

std::string_view Path::name() const {
  const auto slash = text_.rfind('/');
  return std::string_view(text_).substr(slash == std::string::npos ? 0 : slash + 1);
}

Path Path::parent() const {
  Path out = *this;
  for (std::string* text : {&out.text_, &out.spelling_}) {
    const auto slash = text->rfind('/');
    text->resize(slash == std::string::npos ? 0 : slash);
  }
  if (out.spelling_ == out.text_) out.spelling_.clear();
  return out;
}

std::size_t Path::depth() const {
  if (text_.empty()) return 0;
  std::size_t count = 1;
  for (char c : text_) count += c == '/';
  return count;
}

Path Path::operator/(const Path& below) const {
  if (is_root()) return below;
  if (below.is_root()) return *this;
  auto spelled = [](const Path& path) { return path.spelling_.empty() ? path.text_ : path.spelling_; };
  Path out;
  out.field_ = below.field_;
  out.text_ = text_ + "/" + below.text_;
  if (!spelling_.empty() || !below.spelling_.empty()) out.spelling_ = spelled(*this) + "/" + spelled(below);
  return out;
}

bool Path::contains(const Path& other) const {
  if (is_root() || text_ == other.text_) return true;
  return other.text_.size() > text_.size() && other.text_[text_.size()] == '/' &&
         other.text_.starts_with(text_);
}

}  // namespace lathe
