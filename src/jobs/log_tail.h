#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lathe::jobs {

/// The last whole lines of a file, at most so many lines and bytes, as valid UTF-8. Empty if it cannot be
/// read.
std::string log_tail(const std::string& path, std::size_t lines = 50, std::size_t bytes = 8192);

/// Replaces everything that is not valid UTF-8, and NUL, by U+FFFD.
std::string clean_text(std::string_view bytes);

}  // namespace lathe::jobs
