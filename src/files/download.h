#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "http/message.h"

namespace lathe::files {

/// Part of a file: `length` bytes from `offset`.
struct Slice {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool operator==(const Slice&) const = default;
};

/// What a Range header asks of a file of `size` bytes (RFC 9110 §14).
struct Ranges {
  enum class Kind { whole, parts, unsatisfiable } kind = Kind::whole;
  std::vector<Slice> parts;
};
/// A header that is malformed, of another unit, or that asks for too much at once (more than 16 parts, or
/// parts that overlap) is ignored, as the RFC allows: the whole file.
Ranges parse_ranges(std::string_view header, std::uint64_t size);

/// Does an If-None-Match list hold this entity tag (weak comparison)?
bool lists_etag(std::string_view header, std::string_view etag);

/// The answer to a request for an open file: whole, a part by the kernel, several parts as
/// multipart/byteranges, 304 or 416.
Result<http::Response> download(const http::Request& request, Fd file, std::string_view file_name);

}  // namespace lathe::files
