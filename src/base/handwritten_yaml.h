#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/json.h"

/// YAML that people write by hand: definitions of algorithms.
namespace lathe::yaml {

struct Document {
  Json value;
  /// The lines, from 1, of the fields by their paths: `parameters[0].default`.
  std::map<std::string, int, std::less<>> lines;

  /// The line of the field, or of what it is missing from.
  int line_of(std::string_view field) const;
};

/// Reads one document of at most 1 MiB and a depth of 32. Plain scalars are typed as YAML 1.2's core schema
/// has it ("no" is text), except that what is text by `schema` (json::schema of a described struct) stays as
/// it is written: `default: 1e-4`. Anchors, aliases, tags, a second document, keys that are no scalars or
/// stand twice are errors. Errors name the line.
Result<Document> parse_handwritten(std::string_view text, const Json& schema);

}  // namespace lathe::yaml
