#include "files/download.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <fmt/format.h>

#include "base/ids.h"
#include "files/text.h"
#include "files/tus.h"

namespace lathe::files {

namespace {

constexpr std::size_t kMaxParts = 16;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string_view next_item(std::string_view& list) {
  const auto comma = list.find(',');
  const auto item = list.substr(0, comma);
  list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  return trim(item);
}

bool number(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

/// False: malformed. A part outside the file comes out with length 0.
bool parse_part(std::string_view text, std::uint64_t size, Slice& out) {
  const auto dash = text.find('-');
  if (dash == std::string_view::npos) return false;
  const std::string_view first = text.substr(0, dash), last = text.substr(dash + 1);
  std::uint64_t from = 0, to = 0;
  if (first.empty()) {
    if (!number(last, to)) return false;
    out.length = std::min(to, size);
    out.offset = size - out.length;
    return true;
  }
  if (!number(first, from)) return false;
  if (last.empty()) {
    to = size == 0 ? 0 : size - 1;
  } else if (!number(last, to) || to < from) {
    return false;
  }
  out.offset = from;
  out.length = from >= size ? 0 : std::min(to, size - 1) - from + 1;
  return true;
}

std::string content_range(const Slice& part, std::uint64_t size) {
  return fmt::format("bytes {}-{}/{}", part.offset, part.offset + part.length - 1, size);
}

std::string etag_of(const struct stat& st) {
  return fmt::format("\"{:x}-{:x}-{:x}{:08x}\"", st.st_ino, st.st_size, st.st_mtim.tv_sec,
                     st.st_mtim.tv_nsec);
}

/// May the parts of the file the client has be completed from this one?
bool range_allowed(const http::Request& request, std::string_view etag, std::string_view modified) {
  const std::string_view condition = request.headers.get("if-range");
  return condition.empty() || condition == etag || condition == modified;
}

/// Reads on while the client takes it; a file cut short meanwhile ends the connection early, which is how the
/// client learns of it.
bool send_part(http::BodyWriter& out, int fd, Slice part, std::string& buffer) {
  while (part.length > 0) {
    const ssize_t got = pread(fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), part.length),
                              static_cast<off_t>(part.offset));
    if (got <= 0) return false;
    if (!out.write(std::string_view(buffer.data(), static_cast<std::size_t>(got)))) return false;
    part.offset += static_cast<std::uint64_t>(got);
    part.length -= static_cast<std::uint64_t>(got);
  }
  return true;
}

http::StreamBody byte_ranges(std::shared_ptr<const int> fd, std::vector<Slice> parts, std::uint64_t size,
                             std::string type, std::string boundary) {
  return [=](http::BodyWriter& out) {
    std::string buffer(256 * 1024, '\0');
    for (const Slice& part : parts) {
      const std::string head = fmt::format("\r\n--{}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                                           boundary, type, content_range(part, size));
      if (!out.write(head) || !send_part(out, *fd, part, buffer)) return;
    }
    (void)out.write(fmt::format("\r\n--{}--\r\n", boundary));
  };
}

}  // namespace

Ranges parse_ranges(std::string_view header, std::uint64_t size) {
  Ranges whole;
  if (header.empty()) return whole;
  const auto equals = header.find('=');
  if (equals == std::string_view::npos || trim(header.substr(0, equals)) != "bytes") return whole;
  header.remove_prefix(equals + 1);
  Ranges out{Ranges::Kind::parts, {}};
  std::size_t asked = 0;
  while (!header.empty()) {
    const std::string_view item = next_item(header);
    if (item.empty()) continue;
    Slice part;
    if (++asked > kMaxParts || !parse_part(item, size, part)) return whole;
    if (part.length > 0) out.parts.push_back(part);
  }
  if (asked == 0) return whole;
  if (out.parts.empty()) return {Ranges::Kind::unsatisfiable, {}};
  std::vector<Slice> sorted = out.parts;
  std::sort(sorted.begin(), sorted.end(), [](const Slice& a, const Slice& b) { return a.offset < b.offset; });
  for (std::size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i].offset < sorted[i - 1].offset + sorted[i - 1].length) return whole;
  return out;
}

bool lists_etag(std::string_view header, std::string_view etag) {
  while (!header.empty()) {
    std::string_view item = next_item(header);
    if (item == "*") return true;
    if (item.starts_with("W/")) item.remove_prefix(2);
    if (item == etag) return true;
  }
  return false;
}

Result<http::Response> download(const http::Request& request, Fd file, std::string_view file_name) {
  struct stat st {};
  if (fstat(file.get(), &st) != 0) return system_error("stat", errno);
  const auto size = static_cast<std::uint64_t>(st.st_size);
  const std::string etag = etag_of(st);
  const Time modified_at{std::chrono::milliseconds(st.st_mtim.tv_sec * 1000)};
  const std::string modified = tus::http_date(modified_at);
  http::Response response;
  response.headers.set("ETag", etag);
  response.headers.set("Last-Modified", modified);
  response.headers.set("Accept-Ranges", "bytes");
  response.headers.set("Cache-Control", "private, no-cache");
  if (lists_etag(request.headers.get("if-none-match"), etag)) {
    response.status = 304;
    return response;
  }
  Ranges ranges;
  if (range_allowed(request, etag, modified)) ranges = parse_ranges(request.headers.get("range"), size);
  if (ranges.kind == Ranges::Kind::unsatisfiable) {
    response.status = 416;
    response.headers.set("Content-Range", fmt::format("bytes */{}", size));
    return response;
  }
  const std::string type(media_type(file_name));
  response.headers.set("Content-Type", type);
  response.headers.set("Content-Disposition", content_disposition(file_name));
  response.headers.set("X-Content-Type-Options", "nosniff");
  auto fd = http::own_fd(file.release());
  if (ranges.kind == Ranges::Kind::whole) {
    response.body = http::FileBody{std::move(fd), 0, size};
    return response;
  }
  response.status = 206;
  if (ranges.parts.size() == 1) {
    response.headers.set("Content-Range", content_range(ranges.parts[0], size));
    response.body = http::FileBody{std::move(fd), ranges.parts[0].offset, ranges.parts[0].length};
    return response;
  }
  const std::string boundary = random_hex(16);
  response.headers.set("Content-Type", "multipart/byteranges; boundary=" + boundary);
  response.body = byte_ranges(std::move(fd), std::move(ranges.parts), size, type, boundary);
  return response;
}

}  // namespace lathe::files
