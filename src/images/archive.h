#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

struct archive;
struct archive_entry;

namespace lathe::images {

/// What a reader lets an archive do.
struct ArchiveLimits {
  std::uint64_t max_bytes = 1ULL << 40;
  std::uint64_t max_entries = 10'000;
  std::uint64_t max_ratio = 200;  ///< unpacked to packed, beyond the first GiB
};

/// One entry of an archive. Names are relative, without `.` or `..`, whatever the archive calls them.
struct ArchiveEntry {
  enum class Kind { file, folder, link };
  Kind kind = Kind::file;
  std::string name;
  std::uint64_t size = 0;  ///< as announced, of a file
  std::string target;      ///< of a link: the name of the entry it leads to
};

/// Reads a tar, plain or packed with gzip, zstd or xz, front to back in constant memory. What no image
/// archive holds is an error that says what it is: names that climb out of the archive, links that lead out
/// of it, devices and pipes, sparse files, more entries or bytes than allowed. Used by one thread.
class ArchiveReader {
 public:
  /// `progress` is told the bytes of the file read so far, and returns false to end the reading (cancelled).
  static Result<std::unique_ptr<ArchiveReader>> open(Fd file, const ArchiveLimits& limits,
                                                     std::function<bool(std::uint64_t)> progress);
  ~ArchiveReader();

  /// The next entry, or nothing after the last. What was not read of the current one is skipped.
  Result<std::optional<ArchiveEntry>> next();
  /// Some bytes of the current file; empty at its end. Valid until the next call.
  Result<std::string_view> read();

 private:
  ArchiveReader(Fd file, const ArchiveLimits& limits, std::function<bool(std::uint64_t)> progress)
      : file_(std::move(file)), limits_(limits), progress_(std::move(progress)) {}
  static long on_read(archive*, void* self, const void** bytes);
  static std::int64_t on_skip(archive*, void* self, std::int64_t bytes);
  Result<ArchiveEntry> check(archive_entry* entry);
  Result<void> count(std::uint64_t bytes);
  Error failure() const;

  Fd file_;
  const ArchiveLimits limits_;
  const std::function<bool(std::uint64_t)> progress_;
  std::string buffer_;
  archive* archive_ = nullptr;
  std::uint64_t packed_ = 0, unpacked_ = 0, entries_ = 0;
  std::int64_t offset_ = 0;
  bool stopped_ = false, in_file_ = false;
};

/// The SHA-256 of what a blob packed with gzip or zstd unpacks to: the digest a configuration knows a layer
/// by.
Result<std::string> unpacked_digest(Fd file, const ArchiveLimits& limits,
                                    const std::function<bool(std::uint64_t)>& progress);

/// An archive that cannot be accepted, for a reason its user should read: `reason.en` goes on from "the
/// archive", as in "is empty".
Error bad_archive(Text reason);

}  // namespace lathe::images
