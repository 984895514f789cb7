#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

/// The safetensors format (https://huggingface.co/docs/safetensors), read by its header alone: a model of any
/// size costs the same, and nothing in the file is believed before it is checked.
namespace lathe::models {

/// A header beyond this many bytes is refused, as the format's own reader does.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

/// What the tensors of one or several files add up to.
struct Tensors {
  std::int64_t count = 0;
  std::int64_t numbers = 0;                     ///< elements of all tensors
  std::map<std::string, std::int64_t> by_type;  ///< elements by dtype, e.g. "BF16"
  /// Elements of packed integer weights, by what their names end in: ".qweight" holds several weights a
  /// number.
  std::int64_t packed = 0;
  std::int64_t beside_packed = 0;  ///< elements that only say how to unpack (scales, zeros, …)

  Tensors& operator+=(const Tensors& other);
};

/// Reads up to into.size() bytes at an offset; fewer only at the end.
using ReadAt = std::function<Result<std::size_t>(std::uint64_t offset, std::span<char> into)>;

/// Reads an open file, which must stay open as long as this is used.
ReadAt read_from(int fd);

/// Reads and checks the header of a safetensors file of `size` bytes: well-formed JSON of the right shape,
/// every tensor as large as its type and shape say, all of them together exactly the rest of the file. What
/// is wrong is a failed_precondition without the file's name. Memory is bounded by some 30 bytes a tensor.
Result<Tensors> read_safetensors(std::uint64_t size, const ReadAt& read_at);

/// The files named in the `weight_map` of a `model.safetensors.index.json`, and what it says of their size.
struct ShardIndex {
  std::set<std::string> files;
  std::int64_t tensors = 0;
};
Result<ShardIndex> read_shard_index(std::uint64_t size, const ReadAt& read_at);

}  // namespace lathe::models
