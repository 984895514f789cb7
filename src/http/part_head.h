#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace lathe::http {

/// What the headers of one part of a form say.
struct PartHead {
  std::string name;
  std::optional<std::string> filename;
  std::string content_type;
};

/// `lines` are header lines, each with its CR LF. invalid_argument if there is no Content-Disposition
/// form-data with a name, or if a text is not UTF-8.
Result<PartHead> read_part_head(std::string_view lines);

/// The boundary of a multipart/form-data media type; nothing if it is another type or has none.
std::optional<std::string> multipart_boundary(std::string_view content_type);

/// The value of a parameter in `type; name=value; other="value"`, unquoted; nothing if there is none or the
/// text is malformed before it.
std::optional<std::string> parameter(std::string_view header, std::string_view name);

}  // namespace lathe::http
