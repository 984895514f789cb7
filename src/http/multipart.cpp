#include "http/multipart.h"

#include <algorithm>
#include <cstring>

#include "http/part_head.h"

namespace lathe::http {

namespace {

/// Room for what is carried over from one piece to the next: the longest delimiter's beginning.
constexpr std::size_t kCarry = 128;
/// What may stand before the first delimiter and after the last.
constexpr std::size_t kMaxAround = 64 * 1024;

Error malformed(const char* zh, const char* en) {
  return {Code::invalid_argument, {std::string("表单格式有误：") + zh, std::string("malformed form: ") + en}};
}

/// How many bytes at the end of `text` could begin a delimiter.
std::size_t possible_start(std::string_view text, std::string_view delimiter) {
  const auto tail = text.substr(text.size() - std::min(text.size(), delimiter.size() - 1));
  for (auto at = tail.rfind(delimiter[0]); at != std::string_view::npos;
       at = tail.rfind(delimiter[0], at - 1)) {
    if (delimiter.starts_with(tail.substr(at))) return tail.size() - at;
    if (at == 0) break;
  }
  return 0;
}

/// How many places are looked at together: a compiler makes a few vector instructions of it.
constexpr std::size_t kBlock = 128;

/// From `at` on, the first block with a place where the first and the last byte of a delimiter of `size`
/// bytes are, or the last place from which no whole block can be looked at. Random data rarely has such a
/// place; what is made to have them differs in the second byte already, or is compared with bytes that no
/// other candidate has.
[[gnu::always_inline]] inline std::size_t pass_over(std::string_view text, std::size_t at, std::size_t size,
                                                    char first, char last) {
  for (; at + kBlock + size <= text.size(); at += kBlock) {
    const char* const begins = text.data() + at;
    const char* const ends = begins + size - 1;
    unsigned char any = 0;
    for (std::size_t i = 0; i < kBlock; ++i)
      any |= static_cast<unsigned char>((begins[i] == first) & (ends[i] == last));
    if (any != 0) break;
  }
  return at;
}

using PassOver = std::size_t (*)(std::string_view text, std::size_t at, std::size_t size, char first,
                                 char last);

std::size_t pass_over_anywhere(std::string_view text, std::size_t at, std::size_t size, char first,
                               char last) {
  return pass_over(text, at, size, first, last);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] std::size_t pass_over_avx2(std::string_view text, std::size_t at, std::size_t size,
                                                   char first, char last) {
  return pass_over(text, at, size, first, last);
}
const PassOver kPassOver = __builtin_cpu_supports("avx2") ? pass_over_avx2 : pass_over_anywhere;
#else
constexpr PassOver kPassOver = pass_over_anywhere;
#endif

}  // namespace

std::size_t find_delimiter(std::string_view text, std::string_view delimiter) {
  const std::size_t size = delimiter.size();
  if (size < 2 || text.size() < size) return std::string_view::npos;
  for (std::size_t at = 0; at + size <= text.size();) {
    at = kPassOver(text, at, size, delimiter.front(), delimiter.back());
    // A block with candidates, or the end, which is shorter than one.
    const std::size_t end = std::min(at + kBlock, text.size() - size + 1);
    while (at < end) {
      const void* found = std::memchr(text.data() + at, delimiter.front(), end - at);
      if (!found) break;
      at = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
      if (std::memcmp(text.data() + at, delimiter.data(), size) == 0) return at;
      ++at;
    }
    at = end;
  }
  return std::string_view::npos;
}

Result<MultipartReader> MultipartReader::open(BodyReader& body, std::string_view content_type,
                                              Limits limits) {
  const auto boundary = multipart_boundary(content_type);
  if (!boundary)
    return malformed("Content-Type 必须是带有 boundary 的 multipart/form-data",
                     "Content-Type must be multipart/form-data with a boundary");
  return MultipartReader(body, *boundary, limits);
}

MultipartReader::MultipartReader(BodyReader& body, std::string_view boundary, Limits limits)
    : body_(&body),
      limits_(limits),
      delimiter_("\r\n--" + std::string(boundary)),
      buffer_(std::make_unique_for_overwrite<char[]>(kBodyPiece + kCarry)) {
  // The first delimiter has no line before it; with one put there it is like the others.
  std::memcpy(buffer_.get(), "\r\n", 2);
  end_ = 2;
}

Result<void> MultipartReader::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = clean_end_ = 0;
  }
  const std::size_t room = std::min(kBodyPiece, kBodyPiece + kCarry - end_);
  const std::size_t got = TRY(body_->read({buffer_.get() + end_, room}));
  if (got == 0) return malformed("内容不完整", "it ends before its last boundary");
  end_ += got;
  return {};
}

Result<void> MultipartReader::need(std::size_t bytes) {
  while (end_ - begin_ < bytes) TRY(fill());
  return {};
}

Result<std::string_view> MultipartReader::read() {
  if (!in_part_) return std::string_view();
  if (begin_ < clean_end_) return hand_out(clean_end_ - begin_);
  for (;;) {
    const std::string_view held(buffer_.get() + begin_, end_ - begin_);
    const std::size_t found = find_delimiter(held, delimiter_);
    if (found == 0) {
      in_part_ = false;
      return std::string_view();
    }
    if (found != std::string_view::npos) return hand_out(found);
    const std::size_t safe = held.size() - possible_start(held, delimiter_);
    if (safe > 0) return hand_out(safe);
    TRY(fill());
  }
}

std::string_view MultipartReader::hand_out(std::size_t bytes) {
  const std::string_view out(buffer_.get() + begin_, bytes);
  begin_ += bytes;
  clean_end_ = begin_;
  return out;
}

Result<std::size_t> MultipartReader::read(std::span<char> into) {
  const auto piece = TRY(read());
  const std::size_t bytes = std::min(piece.size(), into.size());
  if (bytes > 0) std::memcpy(into.data(), piece.data(), bytes);
  // What did not fit is still in the buffer, just before begin_, and need not be searched again.
  begin_ -= piece.size() - bytes;
  return bytes;
}

Result<std::string> MultipartReader::read_all(std::size_t limit) {
  std::string out;
  for (;;) {
    const auto piece = TRY(read());
    if (piece.empty()) return out;
    if (out.size() + piece.size() > limit)
      return Error{Code::too_large,
                   {"表单字段超过 " + std::to_string(limit) + " 字节的上限",
                    "a form field is larger than the limit of " + std::to_string(limit) + " bytes"}};
    out += piece;
  }
}

Result<void> MultipartReader::skip_part(std::size_t limit) {
  std::size_t skipped = 0;
  for (;;) {
    const auto piece = TRY(read());
    if (piece.empty()) return {};
    skipped += piece.size();
    if (skipped > limit) return malformed("第一个分隔行之前内容过多", "too much before the first boundary");
  }
}

Result<std::optional<MultipartReader::Part>> MultipartReader::next_part() {
  if (finished_) return std::optional<Part>();
  if (!begun_) in_part_ = true;
  TRY(skip_part(begun_ ? SIZE_MAX : kMaxAround));
  begun_ = true;
  const bool another = TRY(take_delimiter());
  if (!another) {
    TRY(finish());
    return std::optional<Part>();
  }
  if (++parts_ > limits_.max_parts)
    return Error{Code::too_large,
                 {"表单超过 " + std::to_string(limits_.max_parts) + " 个部分的上限",
                  "a form of more than " + std::to_string(limits_.max_parts) + " parts"}};
  auto head = read_part_head(TRY(take_head()));
  if (!head) return malformed(head.error().message.zh.c_str(), head.error().message.en.c_str());
  in_part_ = true;
  return std::optional<Part>(
      {std::move(head->name), std::move(head->filename), std::move(head->content_type)});
}

Result<bool> MultipartReader::take_delimiter() {
  begin_ += delimiter_.size();
  TRY(need(2));
  if (std::memcmp(buffer_.get() + begin_, "--", 2) == 0) return false;
  // Padding is allowed by RFC 2046 and never seen.
  for (std::size_t padding = 0;; ++padding) {
    TRY(need(2));
    const char c = buffer_[begin_];
    if (c != ' ' && c != '\t') break;
    if (padding > 64) return malformed("分隔行过长", "an overlong boundary line");
    ++begin_;
  }
  if (std::memcmp(buffer_.get() + begin_, "\r\n", 2) != 0)
    return malformed("分隔行有误", "a malformed boundary line");
  begin_ += 2;
  return true;
}

Result<std::string_view> MultipartReader::take_head() {
  std::size_t line = 0;  // offset of the current line from begin_
  for (std::size_t scanned = 0;;) {
    const std::string_view held(buffer_.get() + begin_, end_ - begin_);
    const std::size_t end = held.find("\r\n", scanned);
    if (end == std::string_view::npos) {
      if (held.size() > limits_.max_head_bytes)
        return malformed("部分的头过大", "a part's headers are too large");
      scanned = held.empty() ? 0 : held.size() - 1;
      TRY(fill());
      continue;
    }
    if (end > limits_.max_head_bytes) return malformed("部分的头过大", "a part's headers are too large");
    if (end == line) {
      begin_ += end + 2;
      return held.substr(0, line);
    }
    scanned = line = end + 2;
  }
}

Result<void> MultipartReader::finish() {
  finished_ = true;
  std::size_t after = end_ - begin_;
  begin_ = end_ = clean_end_ = 0;
  while (after <= kMaxAround) {
    const std::size_t got = TRY(body_->read({buffer_.get(), kBodyPiece}));
    if (got == 0) return {};
    after += got;
  }
  return malformed("最后的分隔行之后内容过多", "too much after the last boundary");
}

}  // namespace lathe::http
