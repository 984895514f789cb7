#pragma once

#include <string_view>

namespace lathe::app {

/// The page at /docs: renders /api/v1/openapi.json by itself, with nothing from elsewhere.
std::string_view docs_page();

}  // namespace lathe::app
