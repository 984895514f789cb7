#include "images/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace lathe::images {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}

bool is_component(std::string_view text) {
  auto is_word = [](char c) { return is_lower(c) || is_digit(c); };
  if (text.empty() || !is_word(text.front()) || !is_word(text.back())) return false;
  for (std::size_t i = 0; i < text.size();) {
    if (is_word(text[i])) {
      ++i;
      continue;
    }
    const std::size_t end = std::min(text.find_first_not_of(text[i], i), text.size());
    const std::size_t length = end - i;
    const bool fine = text[i] == '-' || (text[i] == '.' && length == 1) || (text[i] == '_' && length <= 2);
    if (!fine || !is_word(text[end])) return false;
    i = end;
  }
  return true;
}

}  // namespace

std::optional<Text> wrong_name(std::string_view name) {
  const Text wrong{
      "应为小写字母和数字，中间可用 . _ - 分隔，以 / 分级，最长 255 个字符，如 dzq/45",
      "must be lower-case letters and digits, with . _ - between them, in parts separated by /, at "
      "most 255 characters, like dzq/45"};
  if (name.size() > 255) return wrong;
  while (true) {
    const auto slash = name.find('/');
    if (!is_component(name.substr(0, slash))) return wrong;
    if (slash == std::string_view::npos) return std::nullopt;
    name.remove_prefix(slash + 1);
  }
}

std::optional<Text> wrong_tag(std::string_view tag) {
  auto is_word = [](char c) { return is_lower(c) || is_upper(c) || is_digit(c) || c == '_'; };
  const bool fine =
      !tag.empty() && tag.size() <= 128 && is_word(tag.front()) &&
      std::all_of(tag.begin(), tag.end(), [&](char c) { return is_word(c) || c == '.' || c == '-'; });
  if (fine) return std::nullopt;
  return Text{"应为字母、数字和 _ . -，不能以 . 或 - 开头，最长 128 个字符",
              "must be letters, digits and _ . -, not begin with . or -, and have at most 128 characters"};
}

bool is_digest(std::string_view text) {
  if (!text.starts_with("sha256:") || text.size() != 7 + 64) return false;
  text.remove_prefix(7);
  return std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
}

std::string_view hex_of(std::string_view digest) {
  return digest.substr(7);
}

NameAndTag split_reference(std::string_view text) {
  const auto colon = text.rfind(':');
  const auto slash = text.rfind('/');
  if (colon == std::string_view::npos || (slash != std::string_view::npos && slash > colon))
    return {text, {}};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

std::string size_for_people(std::uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(kUnits); ++unit) value /= 1000;
  return fmt::format("{:.{}f}{}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

}  // namespace lathe::images
