#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "images/blob_store.h"

namespace lathe::images {

/// SHA-256 on a thread of its own, beside the reading and writing of the same bytes, which are copied for it.
/// Small amounts are hashed at once, without a thread. Used by one thread.
class ParallelSha256 {
 public:
  /// The thread may be behind by so many bytes, which is what this takes of memory at most: where the disk
  /// stalls now and then, more lets the hashing go on meanwhile.
  explicit ParallelSha256(std::size_t most_behind = 2 << 20);
  ParallelSha256(ParallelSha256&&) noexcept;
  ParallelSha256& operator=(ParallelSha256&&) noexcept;
  ~ParallelSha256();

  void add(std::string_view bytes);
  /// Everything is hashed, and the thread has ended, when this returns. More may be added.
  void settle();
  /// "sha256:…"; nothing may be added after it.
  std::string digest();

 private:
  struct Worker;
  Sha256 hash_;
  std::size_t most_behind_;
  std::uint64_t total_ = 0;
  std::unique_ptr<Worker> worker_;
};

}  // namespace lathe::images
