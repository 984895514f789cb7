#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lathe::http {

using Pairs = std::vector<std::pair<std::string, std::string>>;

/// Decodes every %XX exactly once. Nothing if an escape is broken, or if the outcome holds NUL or is not
/// UTF-8.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);
/// Encodes everything but RFC 3986's unreserved characters and those in `also_keep`.
std::string percent_encode(std::string_view text, std::string_view also_keep = {});

/// Names and values of a query or of an application/x-www-form-urlencoded body. Broken escapes, NUL and
/// what is not UTF-8 are invalid_argument.
Result<Pairs> parse_form(std::string_view text);

/// A request's target, decoded once.
struct Target {
  std::string path;
  Pairs query;
};
/// Reads an origin-form target ("/a/b?c=d") or "*". Anything that two readers could understand differently
/// is invalid_argument: encoded slashes and NULs, control characters, dot segments, what is not UTF-8.
Result<Target> parse_target(std::string_view target);

/// The platform's language that an Accept-Language value prefers; zh where it says nothing.
Language preferred_language(std::string_view accept_language);

}  // namespace lathe::http
