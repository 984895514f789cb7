#include "base/text_form.h"

#include <algorithm>
#include <cstdint>

namespace lathe {

namespace {

bool is_alpha(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}
bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

template <class Allowed>
bool all(std::string_view text, Allowed allowed) {
  return std::all_of(text.begin(), text.end(), allowed);
}

bool starts_a_word(std::string_view text) {
  return !text.empty() && (is_alpha(text[0]) || text[0] == '_');
}

bool climbs(std::string_view path) {
  while (true) {
    const auto slash = path.find('/');
    if (path.substr(0, slash) == "..") return true;
    if (slash == std::string_view::npos) return false;
    path.remove_prefix(slash + 1);
  }
}

}  // namespace

std::optional<std::size_t> count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++count) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xC2 ? 0
                               : lead < 0xE0 ? 2
                               : lead < 0xF0 ? 3
                               : lead < 0xF5 ? 4
                                             : 0;
    if (length == 0 || i + length > text.size()) return std::nullopt;
    std::uint32_t point = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return std::nullopt;
      point = point << 6 | (next & 0x3F);
    }
    constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kLeast[length] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
      return std::nullopt;
    i += length;
  }
  return count;
}

std::optional<Text> violates(Form form, std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return Text{"不能含有空字符", "must not contain NUL"};
  if (form != Form::any && !all(text, [](char c) { return !is_control(c); }))
    return Text{"不能含有控制字符", "must not contain control characters"};
  switch (form) {
    case Form::any:
    case Form::line:
      return std::nullopt;
    case Form::name:
      if (all(text, [](char c) {
            return !is_ascii(c) || is_alpha(c) || is_digit(c) ||
                   std::string_view(" ._-/:@+()").find(c) != std::string_view::npos;
          }))
        return std::nullopt;
      return Text{"只能包含文字、数字、空格和 ._-/:@+()",
                  "may hold letters, digits, spaces and ._-/:@+() only"};
    case Form::path:
      if (text.size() > 4096) return Text{"路径过长", "is too long a path"};
      if (climbs(text)) return Text{"路径不能含有 ..", "must not contain .."};
      return std::nullopt;
    case Form::id:
      if (all(text, [](char c) { return is_alpha(c) || is_digit(c) || c == '_' || c == '-' || c == '.'; }))
        return std::nullopt;
      return Text{"只能包含字母、数字和 _-.", "may hold letters, digits and _-. only"};
    case Form::variable:
      if (starts_a_word(text) && all(text, [](char c) { return is_alpha(c) || is_digit(c) || c == '_'; }))
        return std::nullopt;
      return Text{"不是合法的变量名", "is not the name of a variable"};
    case Form::option:
      if (starts_a_word(text) &&
          all(text, [](char c) { return is_alpha(c) || is_digit(c) || c == '_' || c == '-' || c == '.'; }))
        return std::nullopt;
      return Text{"不是合法的参数名", "is not the name of a parameter"};
  }
  return std::nullopt;
}

std::string_view pattern_of(Form form) {
  switch (form) {
    case Form::any:
      return "";
    case Form::line:
    case Form::path:
      return R"(^[^\u0000-\u001f\u007f]*$)";
    case Form::name:
      return R"(^[^\u0000-\u001f!"#$%&'*,;<=>?\[\\\]^`{|}~\u007f]*$)";
    case Form::id:
      return "^[A-Za-z0-9_.-]*$";
    case Form::variable:
      return "^([A-Za-z_][A-Za-z0-9_]*)?$";
    case Form::option:
      return "^([A-Za-z_][A-Za-z0-9_.-]*)?$";
  }
  return "";
}

}  // namespace lathe
