#include "base/file_writer.h"

#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/directory.h"
#include "base/log.h"

namespace lathe {

namespace {

constexpr std::uint64_t kStep = 16ULL << 20;
constexpr std::uint64_t kLarge = 1ULL << 20;
constexpr std::uint64_t kScarce = 1ULL << 30;  // of free room

}  // namespace

FileWriter& FileWriter::operator=(FileWriter&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::move(other.fd_);
  size_ = other.size_;
  flushing_ = other.flushing_;
  allocated_ = other.allocated_;
  return *this;
}

Result<void> FileWriter::write(std::string_view bytes) {
  const std::uint64_t end = size_ + bytes.size();
  if (size_ >= kLarge && end > allocated_) allocate(end + std::min(size_, kStep));  // never twice what it has
  TRY(write_all(fd_.get(), bytes));
  size_ = end;
  if (size_ - flushing_ >= kStep) {
    // Only starts the writing; an error shows in sync.
    (void)::sync_file_range(fd_.get(), static_cast<off64_t>(flushing_),
                            static_cast<off64_t>(size_ - flushing_), SYNC_FILE_RANGE_WRITE);
    flushing_ = size_;
  }
  return {};
}

void FileWriter::allocate(std::uint64_t end) {
  allocated_ = end;
  struct statfs room {};
  // What this file may not need in the end could be missing for another.
  if (::fstatfs(fd_.get(), &room) != 0 || room.f_bavail * static_cast<std::uint64_t>(room.f_bsize) < kScarce)
    return;
  // Where it fails, the write says whether there is room.
  (void)::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(size_),
                    static_cast<off_t>(end - size_));
}

Result<void> FileWriter::cut(std::uint64_t size) {
  if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0 ||
      ::lseek(fd_.get(), static_cast<off_t>(size), SEEK_SET) < 0)
    return system_error("ftruncate", errno);
  size_ = allocated_ = size;
  flushing_ = std::min(flushing_, size);
  return {};
}

void FileWriter::give_back() {
  if (allocated_ > size_ && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0)
    log::warning("room that was allocated ahead could not be given back: {}",
                 system_error("ftruncate", errno).describe(Language::en));
  allocated_ = size_;
}

Result<void> FileWriter::sync() {
  give_back();
  if (::fdatasync(fd_.get()) != 0) return system_error("fdatasync", errno);
  return {};
}

void FileWriter::close() {
  if (fd_) give_back();
  fd_.reset();
}

}  // namespace lathe
