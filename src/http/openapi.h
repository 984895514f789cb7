#pragma once

#include <vector>

#include "http/api.h"

namespace lathe::http {

/// What the OpenAPI document says of one route.
struct Documented {
  const Route* route;
  Json input;   ///< schema of all the fields, wherever they travel
  Json output;  ///< schema of the payload; null for none
  bool raw;     ///< the answer is not JSON in an envelope
  std::string_view request_type, answer_type;
};

/// OpenAPI 3.1. Every route appears once, under its documented path.
Json make_openapi(const std::vector<Documented>& routes);

}  // namespace lathe::http
