#pragma once

#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

/// JSON that people write by hand: configuration, definitions of algorithms.
namespace lathe::json {

/// Like parse, but comments and trailing commas are welcome.
Result<Json> parse_handwritten(std::string_view text);

/// The keys that the schema of a described struct (json::schema) does not have, in lists, too: a misspelt key
/// would be a setting that silently is not made. `reason` is said of each.
std::vector<Violation> unknown_keys(const Json& value, const Json& schema, const Text& reason);

}  // namespace lathe::json
