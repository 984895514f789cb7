#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

/// File names on their way to clients.
namespace lathe::files {

/// The name as valid UTF-8: bytes that are not become U+FFFD. (Jobs may make any name.)
std::string valid_text(std::string_view name);

/// A name as a cursor for the next page, and back.
std::string encode_cursor(std::string_view name);
Result<std::string> decode_cursor(std::string_view cursor);

/// `Content-Disposition: attachment` for a name in any script (RFC 6266, RFC 8187).
std::string content_disposition(std::string_view file_name);
/// By the name's ending; application/octet-stream for what is not known.
std::string_view media_type(std::string_view file_name);

}  // namespace lathe::files
