#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "models/gguf.h"
#include "models/safetensors.h"

/// Heads of weight files come from users: whatever the bytes, reading them ends soon, within the bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const lathe::models::ReadAt read_at = [file](std::uint64_t offset,
                                               std::span<char> into) -> lathe::Result<std::size_t> {
    if (offset >= file.size()) return std::size_t{0};
    const std::size_t count = std::min<std::size_t>(into.size(), file.size() - offset);
    std::memcpy(into.data(), file.data() + offset, count);
    return count;
  };
  (void)lathe::models::read_safetensors(size, read_at);
  (void)lathe::models::read_shard_index(size, read_at);
  (void)lathe::models::read_gguf(size, read_at);
  return 0;
}
