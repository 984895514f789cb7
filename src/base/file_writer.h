#pragma once

#include <cstdint>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace lathe {

/// A large file that is written from front to back. Room is allocated ahead, which halves what the file
/// system does for each page; the bytes are handed to the disk as they come, so that the final sync is short.
/// What was allocated in excess is given back by sync and at the end. Used by one thread at a time.
class FileWriter {
 public:
  FileWriter() = default;
  /// `written` bytes are there already, and the descriptor stands behind them.
  FileWriter(Fd fd, std::uint64_t written)
      : fd_(std::move(fd)), size_(written), flushing_(written), allocated_(written) {}
  FileWriter(FileWriter&&) noexcept = default;
  FileWriter& operator=(FileWriter&& other) noexcept;
  ~FileWriter() { close(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }

  /// All of it, or an error as system_error; then some of it may be in the file.
  Result<void> write(std::string_view bytes);
  /// Makes what was written durable.
  Result<void> sync();
  /// Takes it back to `size` bytes, of those that it has.
  Result<void> cut(std::uint64_t size);
  void close();
  std::uint64_t size() const { return size_; }
  int fd() const { return fd_.get(); }

 private:
  void allocate(std::uint64_t end);
  void give_back();

  Fd fd_;
  std::uint64_t size_ = 0;
  std::uint64_t flushing_ = 0;   ///< up to here the kernel was told to write
  std::uint64_t allocated_ = 0;  ///< up to here it was asked for room, or size_
};

}  // namespace lathe
