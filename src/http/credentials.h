#pragma once

#include <string_view>

#include "http/parser.h"

namespace lathe::http {

/// Do credentials or a challenge (RFC 9110 §11.3, §11.4) begin with this scheme, and say more?
inline bool has_scheme(std::string_view field, std::string_view scheme) {
  return field.size() > scheme.size() && field[scheme.size()] == ' ' &&
         same_ignoring_case(field.substr(0, scheme.size()), scheme);
}

}  // namespace lathe::http
