#pragma once

#include <string>
#include <string_view>

#include "algorithms/algorithms.h"
#include "algorithms/algorithms_wire.h"

namespace lathe::algorithms {

enum class Format { yaml, json };

/// Reads one file's text. invalid_argument with all that is wrong, of YAML with its line: unknown keys,
/// placeholders that nothing fills, defaults outside of their own range. `command`, and the `words` of
/// options, are lists, or text whose words are apart by blanks. The code's folder is not looked for.
Result<wire::Definition> read_definition(std::string_view text, Format format);

/// The placeholders in a word, in order.
std::vector<std::string> placeholders_in(std::string_view word);

/// Why a parameter cannot have this value, or nothing if it can.
std::optional<Text> refuse_value(const Parameter& parameter, std::string_view value);

}  // namespace lathe::algorithms
