#include "http/url.h"

#include <algorithm>
#include <cstdlib>

#include "base/text_form.h"

namespace lathe::http {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

Error bad_target(const char* zh, const char* en) {
  return {Code::invalid_argument,
          {std::string("请求地址有误：") + zh, std::string("bad request target: ") + en}};
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

/// The character set of Chrome's and Firefox's own URLs: what they never send unencoded is refused.
bool plain_characters(std::string_view text, std::string_view refused) {
  return text.find_first_of(refused) == std::string_view::npos && !has_control(text) &&
         text.find(' ') == std::string_view::npos;
}

bool has_dot_segment(std::string_view path) {
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const auto segment = path.substr(start, end - start);
    if (segment == "." || segment == "..") return true;
    start = end + 1;
  }
  return false;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  if (out.find('\0') != std::string::npos || !count_code_points(out)) return std::nullopt;
  return out;
}

std::string percent_encode(std::string_view text, std::string_view also_keep) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool unreserved = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            c == '-' || c == '.' || c == '_' || c == '~';
    if (unreserved || also_keep.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

Result<Pairs> parse_form(std::string_view text) {
  Pairs out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const auto piece = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (piece.empty()) continue;
    const std::size_t equals = std::min(piece.find('='), piece.size());
    auto key = percent_decode(piece.substr(0, equals), true);
    auto value = percent_decode(piece.substr(std::min(equals + 1, piece.size())), true);
    if (!key || !value)
      return bad_target("参数的百分号编码有误，或不是有效的 UTF-8",
                        "a parameter with a broken percent escape, with NUL, or not valid UTF-8");
    out.emplace_back(std::move(*key), std::move(*value));
  }
  return out;
}

Result<Target> parse_target(std::string_view target) {
  Target out;
  if (target == "*") {
    out.path = "*";
    return out;
  }
  if (target.empty() || target.front() != '/')
    return bad_target("必须以 / 开头", "it must begin with a slash");
  const std::size_t mark = std::min(target.find('?'), target.size());
  const auto path = target.substr(0, mark);
  const auto query = target.substr(std::min(mark + 1, target.size()));
  if (!plain_characters(path, "\"<>\\#`{}") || !plain_characters(query, "\"<>#"))
    return bad_target("含有未编码的特殊字符", "it contains characters that must be percent-encoded");
  auto decoded = percent_decode(path);
  if (!decoded)
    return bad_target("路径的百分号编码有误，或不是有效的 UTF-8",
                      "a path with a broken percent escape, with NUL, or not valid UTF-8");
  // Decoded slashes cannot be told from the path's own, so that two readers would see two paths.
  if (std::count(decoded->begin(), decoded->end(), '/') != std::count(path.begin(), path.end(), '/'))
    return bad_target("路径中不允许编码的斜杠", "an encoded slash in the path");
  if (has_control(*decoded)) return bad_target("路径含有控制字符", "a control character in the path");
  if (has_dot_segment(*decoded)) return bad_target("路径不允许 . 或 .. 段", "a dot segment in the path");
  out.path = std::move(*decoded);
  out.query = TRY(parse_form(query));
  return out;
}

Language preferred_language(std::string_view accept_language) {
  double best = 0;
  Language out = Language::zh;
  while (!accept_language.empty()) {
    const std::size_t end = std::min(accept_language.find(','), accept_language.size());
    auto item = trimmed(accept_language.substr(0, end));
    accept_language.remove_prefix(std::min(end + 1, accept_language.size()));
    double weight = 1;
    if (const auto semicolon = item.find(';'); semicolon != std::string_view::npos) {
      const auto parameter = trimmed(item.substr(semicolon + 1));
      if (parameter.starts_with("q="))
        weight = std::strtod(std::string(parameter.substr(2)).c_str(), nullptr);
      item = trimmed(item.substr(0, semicolon));
    }
    std::string tag(item.substr(0, item.find('-')));
    std::transform(tag.begin(), tag.end(), tag.begin(), [](char c) { return c | 0x20; });
    if (weight <= best || (tag != "zh" && tag != "en")) continue;
    best = weight;
    out = tag == "zh" ? Language::zh : Language::en;
  }
  return out;
}

}  // namespace lathe::http
