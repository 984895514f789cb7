#include "models/gguf.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <vector>

namespace lathe::models {

namespace {

constexpr std::uint64_t kMaxItems = 10'000'000;  // keys, tensors, elements of a list of strings
constexpr std::uint64_t kMaxText = 64ULL << 20;  // a chat template is long, this long is none

Error damaged() {
  return Error{Code::failed_precondition, {"不是完整的 GGUF 文件", "is not a whole GGUF file"}};
}

/// Reads the head from front to back through a window.
class Cursor {
 public:
  Cursor(std::uint64_t size, const ReadAt& read_at) : size_(size), read_at_(read_at) {}

  template <class T>
  Result<T> number() {
    std::array<char, sizeof(T)> bytes{};
    TRY(copy(bytes));
    std::uint64_t value = 0;
    for (std::size_t i = sizeof(T); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return static_cast<T>(value);
  }
  /// A string's first `keep` bytes.
  Result<std::string> text(std::size_t keep = 256) {
    const auto length = TRY(number<std::uint64_t>());
    if (length > kMaxText || length > size_ - at_) return damaged();
    std::string out(std::min<std::size_t>(length, keep), '\0');
    TRY(copy(out));
    return skip(length - out.size()) ? Result<std::string>(std::move(out)) : Result<std::string>(damaged());
  }
  bool skip(std::uint64_t bytes) {
    if (bytes > size_ - at_) return false;
    at_ += bytes;
    return true;
  }
  std::uint64_t at() const { return at_; }

 private:
  Result<void> copy(std::span<char> into) {
    if (into.size() > size_ - at_) return damaged();
    for (std::size_t done = 0; done < into.size();) {
      if (at_ < start_ || at_ >= start_ + window_.size()) TRY(fill());
      const std::size_t from = at_ - start_;
      const std::size_t take = std::min(window_.size() - from, into.size() - done);
      std::copy_n(window_.data() + from, take, into.data() + done);
      done += take;
      at_ += take;
    }
    return {};
  }
  Result<void> fill() {
    window_.resize(std::min<std::uint64_t>(64 * 1024, size_ - at_));
    const std::size_t got = TRY(read_at_(at_, std::span(window_)));
    if (got == 0) return damaged();
    window_.resize(got);
    start_ = at_;
    return {};
  }
  std::uint64_t size_;
  const ReadAt& read_at_;
  std::uint64_t at_ = 0;
  std::uint64_t start_ = 0;
  std::vector<char> window_;
};

enum ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

/// Bytes of a value of fixed size; 0 for the others.
std::uint64_t width(std::uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

Result<void> skip_list(Cursor& cursor) {
  const auto type = TRY(cursor.number<std::uint32_t>());
  const auto count = TRY(cursor.number<std::uint64_t>());
  if (const auto each = width(type)) {
    if (count > std::numeric_limits<std::uint64_t>::max() / each || !cursor.skip(count * each))
      return damaged();
    return {};
  }
  if (type != kString || count > kMaxItems) return damaged();
  for (std::uint64_t i = 0; i < count; ++i) TRY(cursor.text(0));
  return {};
}

Result<std::int64_t> whole_number(Cursor& cursor, std::uint32_t type) {
  std::uint64_t value = 0;
  switch (width(type)) {
    case 1:
      value = TRY(cursor.number<std::uint8_t>());
      break;
    case 2:
      value = TRY(cursor.number<std::uint16_t>());
      break;
    case 4:
      value = TRY(cursor.number<std::uint32_t>());
      break;
    default:
      value = TRY(cursor.number<std::uint64_t>());
      break;
  }
  const bool fits = value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return type == kFloat32 || type == kFloat64 || !fits ? 0 : static_cast<std::int64_t>(value);
}

std::string_view file_type(std::int64_t type) {
  static constexpr std::pair<std::int64_t, std::string_view> kTypes[] = {
      {0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},    {8, "Q5_0"},
      {9, "Q5_1"},    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"}, {13, "Q3_K_L"}, {14, "Q4_K_S"},
      {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"}, {18, "Q6_K"},   {32, "BF16"}};
  for (const auto& [number, name] : kTypes)
    if (number == type) return name;
  return {};
}

Result<void> read_value(Cursor& cursor, const std::string& key, GgufHeader& out) {
  const auto type = TRY(cursor.number<std::uint32_t>());
  if (type == kArray) return skip_list(cursor);
  if (type == kString) {
    std::string value = TRY(cursor.text());
    if (key == "general.architecture") out.architecture = std::move(value);
    return {};
  }
  if (width(type) == 0) return damaged();
  const std::int64_t value = TRY(whole_number(cursor, type));
  if (key == "general.file_type") out.type = file_type(value);
  if (key.ends_with(".context_length")) out.context_length = value;
  return {};
}

Result<void> read_tensor(Cursor& cursor, GgufHeader& out) {
  TRY(cursor.text(0));
  const auto dimensions = TRY(cursor.number<std::uint32_t>());
  if (dimensions > 8) return damaged();
  std::uint64_t numbers = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i)
    if (__builtin_mul_overflow(numbers, TRY(cursor.number<std::uint64_t>()), &numbers)) return damaged();
  TRY(cursor.number<std::uint32_t>());  // its type
  TRY(cursor.number<std::uint64_t>());  // its offset
  if (numbers > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() - out.numbers))
    return damaged();
  out.numbers += static_cast<std::int64_t>(numbers);
  return {};
}

}  // namespace

Result<GgufHeader> read_gguf(std::uint64_t size, const ReadAt& read_at) {
  Cursor cursor(size, read_at);
  const auto magic = TRY(cursor.number<std::uint32_t>());
  const auto version = TRY(cursor.number<std::uint32_t>());
  if (magic != 0x46554747 || version < 2 || version > 3) return damaged();
  const auto tensors = TRY(cursor.number<std::uint64_t>());
  const auto keys = TRY(cursor.number<std::uint64_t>());
  if (tensors > kMaxItems || keys > kMaxItems) return damaged();
  GgufHeader out;
  for (std::uint64_t i = 0; i < keys; ++i) {
    const std::string key = TRY(cursor.text());
    TRY(read_value(cursor, key, out));
  }
  for (std::uint64_t i = 0; i < tensors; ++i) TRY(read_tensor(cursor, out));
  out.tensors = static_cast<std::int64_t>(tensors);
  return out;
}

}  // namespace lathe::models
