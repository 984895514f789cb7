#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "models/safetensors.h"

namespace lathe::models {

/// What the head of a GGUF file says (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
struct GgufHeader {
  std::string architecture;  ///< general.architecture: "llama"
  std::string type;          ///< general.file_type in words: "Q4_K_M"; "" for an unknown one
  std::int64_t tensors = 0;
  std::int64_t numbers = 0;  ///< elements of all tensors; 0: not known
  std::int64_t context_length = 0;
};

/// Reads it, believing nothing: no length is used before it is known to lie within the file. What is wrong is
/// a failed_precondition without the file's name. Values that are not needed are passed over, not read.
Result<GgufHeader> read_gguf(std::uint64_t size, const ReadAt& read_at);

}  // namespace lathe::models
