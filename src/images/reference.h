#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

/// The names of images, tags and contents, as OCI distribution has them.
namespace lathe::images {

/// Why `name` cannot name an image; nothing if it can: lower-case letters and digits, with single `.`, one or
/// two `_`, or `-` between them, in components separated by `/`, 255 bytes at most.
std::optional<Text> wrong_name(std::string_view name);
/// Why `tag` cannot be a tag: letters, digits, `_`, `.`, `-`, not first `.` or `-`, 128 bytes at most.
std::optional<Text> wrong_tag(std::string_view tag);

/// `sha256:` and 64 lower-case hexadecimal digits.
bool is_digest(std::string_view text);
/// The 64 digits of a digest.
std::string_view hex_of(std::string_view digest);

/// `name:tag` in its two parts; the tag is empty where there is none.
struct NameAndTag {
  std::string_view name, tag;
};
NameAndTag split_reference(std::string_view text);

/// `1.1MB`, in decimal units, as image tools show it.
std::string size_for_people(std::uint64_t bytes);

}  // namespace lathe::images
