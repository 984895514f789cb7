#pragma once

#include <span>
#include <string_view>

namespace lathe::algorithms {

/// A file of the repository that the build put into the binary.
struct EmbeddedFile {
  std::string_view name;  ///< "vllm.yaml"; of code "tiny-llm/model.py"
  std::string_view content;
};

/// `algorithms/*.yaml`, by name.
std::span<const EmbeddedFile> embedded_definitions();
/// The built-in algorithms' own code, by name.
std::span<const EmbeddedFile> embedded_code();

}  // namespace lathe::algorithms
