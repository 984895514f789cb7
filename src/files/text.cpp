#include "files/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "http/url.h"

namespace lathe::files {

namespace {

constexpr char kHex[] = "0123456789abcdef";

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string valid_text(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    utf8proc_int32_t point = 0;
    auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(name.data()),
                                   static_cast<utf8proc_ssize_t>(name.size()), &point);
    if (length <= 0) {
      out += "\xEF\xBF\xBD";
      length = 1;
    } else {
      out += name.substr(0, static_cast<std::size_t>(length));
    }
    name.remove_prefix(static_cast<std::size_t>(length));
  }
  return out;
}

std::string encode_cursor(std::string_view name) {
  std::string out;
  for (const char c : name) {
    out += kHex[static_cast<unsigned char>(c) >> 4];
    out += kHex[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

Result<std::string> decode_cursor(std::string_view cursor) {
  std::string out;
  for (std::size_t i = 0; i < cursor.size(); i += 2) {
    const int high = digit(cursor[i]);
    const int low = i + 1 < cursor.size() ? digit(cursor[i + 1]) : -1;
    if (high < 0 || low < 0) return invalid_field("cursor", {"不是有效的游标", "is not a cursor"});
    out += static_cast<char>(high << 4 | low);
  }
  return out;
}

std::string content_disposition(std::string_view file_name) {
  const std::string name = valid_text(file_name);
  std::string plain;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) continue;
    if (byte >= 0x80) {
      if ((byte & 0xC0) != 0x80) plain += '_';  // one for each character, for clients older than RFC 8187
    } else {
      if (c == '"' || c == '\\') plain += '\\';
      plain += c;
    }
  }
  return "attachment; filename=\"" + plain + "\"; filename*=UTF-8''" + http::percent_encode(name);
}

std::string_view media_type(std::string_view file_name) {
  struct Known {
    std::string_view ending, type;
  };
  static constexpr Known kKnown[] = {
      {".json", "application/json"},
      {".jsonl", "application/x-ndjson"},
      {".txt", "text/plain; charset=utf-8"},
      {".log", "text/plain; charset=utf-8"},
      {".md", "text/markdown; charset=utf-8"},
      {".csv", "text/csv; charset=utf-8"},
      {".yaml", "application/yaml"},
      {".yml", "application/yaml"},
      {".py", "text/x-python; charset=utf-8"},
      {".tar", "application/x-tar"},
      {".gz", "application/gzip"},
      {".zip", "application/zip"},
      {".zst", "application/zstd"},
      {".pdf", "application/pdf"},
      {".png", "image/png"},
      {".jpg", "image/jpeg"},
  };
  const auto* found = std::find_if(std::begin(kKnown), std::end(kKnown),
                                   [&](const Known& known) { return file_name.ends_with(known.ending); });
  return found == std::end(kKnown) ? "application/octet-stream" : found->type;
}

}  // namespace lathe::files
