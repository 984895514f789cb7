#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

/// The texts of tus 1.0 (https://tus.io/protocols/resumable-upload): headers in, headers out.
namespace lathe::files::tus {

inline constexpr std::string_view kVersion = "1.0.0";
inline constexpr std::string_view kExtensions =
    "creation,creation-with-upload,termination,checksum,expiration";
inline constexpr std::string_view kAlgorithms = "sha1,sha256";
inline constexpr std::string_view kMediaType = "application/offset+octet-stream";
inline constexpr int kChecksumMismatch = 460;

/// A whole number that is not negative, as in Upload-Length; `field` names the header.
Result<std::int64_t> parse_count(std::string_view text, std::string_view field);

/// `Upload-Metadata: filename d29ybGQ=,is_confidential` decoded.
Result<std::map<std::string, std::string>> parse_metadata(std::string_view text);

/// The running hash of `Upload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=`. Used by one thread.
class Checksum {
 public:
  /// Nothing for an empty header; invalid_argument for an algorithm that is not known or a text that is no
  /// hash.
  static Result<std::optional<Checksum>> parse(std::string_view header);
  void add(std::string_view bytes);
  /// Are the bytes added those that the header promised? Called once, at the end.
  bool matches();

 private:
  Checksum() = default;
  std::shared_ptr<void> context_;
  std::string expected_;
};

/// `Wed, 25 Jun 2014 16:00:00 GMT`, for Upload-Expires.
std::string http_date(Time time);

}  // namespace lathe::files::tus
