#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lathe::http {

/// Decodes `%XX` exactly once. Nothing if an escape is malformed, or if the outcome holds NUL or is not
/// UTF-8.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

/// Everything but unreserved characters (RFC 3986 §2.3) becomes `%XX`; `keep` names further ones to keep
/// ("/").
std::string percent_encode(std::string_view text, std::string_view keep = {});

/// Decodes `a=1&b=2` (a query, or an application/x-www-form-urlencoded body), in order.
Result<std::vector<std::pair<std::string, std::string>>> parse_form(std::string_view text);

}  // namespace lathe::http
