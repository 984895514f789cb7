#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>

#include "base/fields.h"
#include "base/result.h"

namespace lathe {

using Json = boost::json::value;

namespace json {

/// How times are written.
enum class TimeStyle {
  local,  ///< `2026-01-02 03:04:05`, the documented API
  iso,    ///< `2026-01-02T03:04:05.678Z`, the project's own API
};

/// Parses one JSON text. Errors name the position. Depth is limited to 32.
Result<Json> parse(std::string_view text);
std::string print(const Json& value);

// Used by the templates below.
Result<void> read_fields(const Json& object, void* target, void (*visit)(Fields&, void*));
std::string write_fields(const void* source, void (*visit)(Fields&, void*), TimeStyle style);
Json schema_of(void* sample, void (*visit)(Fields&, void*));

/// Reads a described struct from a JSON object: all the wrong fields are reported at once, unknown ones are
/// ignored, absent ones keep the value the struct was made with.
template <class T>
Result<T> read(const Json& value) {
  T out{};
  TRY(read_fields(value, &out, [](Fields& f, void* p) { f.visit(*static_cast<T*>(p), Rule{}); }));
  return out;
}

template <class T>
Result<T> parse_as(std::string_view text) {
  Json value = TRY(parse(text));
  return read<T>(value);
}

/// A described struct as JSON text. What is absent and what is no number are null.
template <class T>
std::string write(const T& value, TimeStyle style = TimeStyle::iso) {
  return write_fields(
      &value, [](Fields& f, void* p) { f.visit(*static_cast<T*>(p), Rule{}); }, style);
}

/// The JSON Schema (2020-12) of a described struct.
template <class T>
Json schema() {
  T sample{};
  return schema_of(&sample, [](Fields& f, void* p) { f.visit(*static_cast<T*>(p), Rule{}); });
}

}  // namespace json
}  // namespace lathe
