#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace lathe {

/// RFC 4648 §4: the standard alphabet, padded.
std::string to_base64(std::string_view bytes);
/// Nothing where the text is no such thing.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace lathe
