#pragma once

#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/fields.h"

namespace lathe {

/// The number of code points, or nothing if the text is not valid UTF-8 (RFC 3629).
std::optional<std::size_t> count_code_points(std::string_view text);

/// Why `text` does not have the form, or nothing if it does.
std::optional<Text> violates(Form form, std::string_view text);

/// The form as a regular expression (ECMA-262), as far as one can say it; "" where anything goes.
std::string_view pattern_of(Form form);

}  // namespace lathe
