#include "base/handwritten_json.h"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace lathe::json {

namespace {

namespace bj = boost::json;

void find_unknown(const Json& value, const Json& schema, const std::string& path, const Text& reason,
                  std::vector<Violation>& out) {
  const auto* shape = schema.if_object();
  if (!shape) return;
  if (const auto* list = value.if_array()) {
    const Json* items = shape->if_contains("items");
    for (std::size_t i = 0; items && i < list->size(); ++i)
      find_unknown((*list)[i], *items, fmt::format("{}[{}]", path, i), reason, out);
    return;
  }
  const auto* object = value.if_object();
  const auto* properties = shape->if_contains("properties");
  if (!object || !properties) return;
  for (const auto& item : *object) {
    const std::string key = path + (path.empty() ? "" : ".") + std::string(item.key());
    const Json* known = properties->get_object().if_contains(item.key());
    if (known) {
      find_unknown(item.value(), *known, key, reason, out);
    } else {
      out.push_back({key, reason});
    }
  }
}

}  // namespace

Result<Json> parse_handwritten(std::string_view text) {
  bj::parse_options options;
  options.allow_comments = true;
  options.allow_trailing_commas = true;
  options.max_depth = 32;
  boost::system::error_code error;
  bj::stream_parser parser({}, options);
  const std::size_t used = parser.write_some(text.data(), text.size(), error);
  if (!error && used < text.size() && text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    error = bj::error::extra_data;
  if (!error) parser.finish(error);
  if (error)
    return Error{Code::invalid_argument,
                 {fmt::format("不是合法的 JSON（位置 {}：{}）", used, error.message()),
                  fmt::format("not valid JSON (at {}: {})", used, error.message())}};
  return parser.release();
}

std::vector<Violation> unknown_keys(const Json& value, const Json& schema, const Text& reason) {
  std::vector<Violation> out;
  find_unknown(value, schema, "", reason, out);
  return out;
}

}  // namespace lathe::json
