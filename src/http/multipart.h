#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/message.h"

namespace lathe::http {

/// Reads multipart/form-data (RFC 7578) while it arrives, in constant memory. One thread, the body's.
///
///     auto form = TRY(MultipartReader::open(*request.stream, request.headers.get("Content-Type")));
///     while (auto part = TRY(form.next_part()))
///       for (auto piece = TRY(form.read()); !piece.empty(); piece = TRY(form.read())) ...
///
/// Errors are invalid_argument for what is malformed or cut short, and those of BodyReader::read.
class MultipartReader {
 public:
  struct Limits {
    std::size_t max_parts = 10'000;
    std::size_t max_head_bytes = 16 * 1024;  ///< of one part's headers
  };
  struct Part {
    std::string name;
    std::optional<std::string>
        filename;              ///< UTF-8, as the client wrote it: may hold any path; absent: a field
    std::string content_type;  ///< "" if not given
  };

  /// `body` must outlive the reader. invalid_argument unless `content_type` is multipart/form-data with a
  /// boundary.
  static Result<MultipartReader> open(BodyReader& body, std::string_view content_type, Limits limits);
  static Result<MultipartReader> open(BodyReader& body, std::string_view content_type) {
    return open(body, content_type, Limits{});
  }

  /// The next part, or nothing after the last. What is left of the current one is skipped.
  Result<std::optional<Part>> next_part();
  /// Some bytes of the current part, not much more than kBodyPiece; empty at its end. Valid until the next
  /// call.
  Result<std::string_view> read();
  /// The same, copied; 0 at the end.
  Result<std::size_t> read(std::span<char> into);
  /// All that is left of the current part; too_large beyond `limit` bytes. For form fields.
  Result<std::string> read_all(std::size_t limit = 64 * 1024);

 private:
  MultipartReader(BodyReader& body, std::string_view boundary, Limits limits);
  Result<void> fill();
  std::string_view hand_out(std::size_t bytes);
  Result<void> need(std::size_t bytes);
  Result<void> skip_part(std::size_t limit);
  Result<bool> take_delimiter();
  Result<std::string_view> take_head();
  Result<void> finish();

  BodyReader* body_;
  Limits limits_;
  std::string delimiter_;  ///< CR LF - - boundary
  std::unique_ptr<char[]> buffer_;
  std::size_t begin_ = 0, end_ = 0, parts_ = 0;
  std::size_t clean_end_ = 0;  ///< up to here nothing but content
  bool in_part_ = false, begun_ = false, finished_ = false;
};

/// The offset of the first `delimiter` in `text`, or npos. Linear whatever the text is, as long as the
/// delimiter's first byte does not occur in it again (a multipart delimiter's cannot).
std::size_t find_delimiter(std::string_view text, std::string_view delimiter);

}  // namespace lathe::http
