#include "http/part_head.h"

#include <algorithm>

#include "base/text_form.h"
#include "http/parser.h"
#include "http/url.h"

namespace lathe::http {

namespace {

Error bad(const char* zh, const char* en) {
  return {Code::invalid_argument, {zh, en}};
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Takes a token or a quoted string off the front.
std::optional<std::string> take_value(std::string_view& text) {
  std::string out;
  if (!text.starts_with('"')) {
    const std::size_t end = std::min(text.find(';'), text.size());
    out = trimmed(text.substr(0, end));
    text.remove_prefix(end);
    return out;
  }
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') {
      text.remove_prefix(i + 1);
      return out;
    }
    // Only what curl escapes: browsers send a backslash as it is.
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
    out += text[i];
  }
  return std::nullopt;
}

/// RFC 8187: UTF-8'language'percent-encoded.
std::optional<std::string> extended_value(std::string_view text) {
  const std::size_t first = text.find('\'');
  const std::size_t second = first == std::string_view::npos ? first : text.find('\'', first + 1);
  if (second == std::string_view::npos || !same_ignoring_case(text.substr(0, first), "utf-8"))
    return std::nullopt;
  return percent_decode(text.substr(second + 1));
}

Result<void> read_disposition(PartHead& head, std::string_view value) {
  if (!same_ignoring_case(trimmed(value.substr(0, value.find(';'))), "form-data"))
    return bad("Content-Disposition 必须是 form-data", "Content-Disposition must be form-data");
  auto name = parameter(value, "name");
  if (!name) return bad("缺少 name", "a part without a name");
  head.name = std::move(*name);
  head.filename = parameter(value, "filename");
  if (const auto extended = parameter(value, "filename*")) {
    head.filename = extended_value(*extended);
    if (!head.filename) return bad("filename* 有误", "a malformed filename*");
  }
  if (!count_code_points(head.name) || (head.filename && !count_code_points(*head.filename)))
    return bad("名称不是有效的 UTF-8", "a name that is not valid UTF-8");
  return {};
}

}  // namespace

std::optional<std::string> parameter(std::string_view header, std::string_view name) {
  std::string_view rest = header.substr(std::min(header.find(';'), header.size()));
  while (rest.starts_with(';')) {
    rest = trimmed(rest.substr(1));
    const std::size_t equals = rest.find('=');
    if (rest.empty()) return std::nullopt;
    if (equals == std::string_view::npos) return std::nullopt;
    const auto key = trimmed(rest.substr(0, equals));
    rest = trimmed(rest.substr(equals + 1));
    auto value = take_value(rest);
    if (!value) return std::nullopt;
    if (same_ignoring_case(key, name)) return value;
    rest = trimmed(rest);
  }
  return std::nullopt;
}

Result<PartHead> read_part_head(std::string_view lines) {
  PartHead head;
  bool has_disposition = false;
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find("\r\n"), lines.size());
    const auto line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 2, lines.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon)) || !is_field_value(line))
      return bad("部分的头有误", "a malformed header of a part");
    const auto value = trimmed(line.substr(colon + 1));
    if (same_ignoring_case(line.substr(0, colon), "Content-Disposition")) {
      if (has_disposition) return bad("重复的 Content-Disposition", "two Content-Disposition headers");
      has_disposition = true;
      TRY(read_disposition(head, value));
    } else if (same_ignoring_case(line.substr(0, colon), "Content-Type")) {
      head.content_type = value;
    }
  }
  if (!has_disposition) return bad("缺少 Content-Disposition", "a part without Content-Disposition");
  return head;
}

std::optional<std::string> multipart_boundary(std::string_view content_type) {
  if (!same_ignoring_case(trimmed(content_type.substr(0, content_type.find(';'))), "multipart/form-data"))
    return std::nullopt;
  auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70 || boundary->back() == ' ') return std::nullopt;
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos;
  };
  if (!std::all_of(boundary->begin(), boundary->end(), allowed)) return std::nullopt;
  return boundary;
}

}  // namespace lathe::http
