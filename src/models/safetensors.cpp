#include "models/safetensors.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <cerrno>
#include <limits>
#include <optional>
#include <vector>

namespace lathe::models {

namespace {

namespace bj = boost::json;

constexpr std::uint64_t kMaxIndex = 100'000'000;
constexpr std::size_t kMaxShards = 100'000;
constexpr std::size_t kChunk = 64 * 1024;

Error damaged(std::string zh, std::string en) {
  return Error{Code::failed_precondition, {std::move(zh), std::move(en)}};
}

/// Bits an element takes; nothing for a type made later than this reader.
std::optional<std::uint64_t> bits_of(std::string_view type) {
  static constexpr std::pair<std::string_view, std::uint64_t> kTypes[] = {
      {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"I16", 16},       {"U16", 16},    {"F16", 16},
      {"BF16", 16},   {"I32", 32},    {"U32", 32},        {"F32", 32},       {"I64", 64},    {"U64", 64},
      {"F64", 64},    {"C64", 64},    {"F8_E4M3", 8},     {"F8_E5M2", 8},    {"F8_E8M0", 8}, {"F4", 4},
      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}};
  for (const auto& [name, bits] : kTypes)
    if (name == type) return bits;
  return std::nullopt;
}

bool multiply(std::uint64_t& value, std::uint64_t by) {
  return !__builtin_mul_overflow(value, by, &value);
}

/// What every handler of basic_parser needs; the derived one says what it does about the values. Strings are
/// kept up to a limit, so that a hostile one costs no memory.
template <class Derived>
class Events {
 public:
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = 64 * 1024;
  static constexpr std::size_t max_string_size = 16 * 1024 * 1024;

  int depth = 0;
  std::vector<std::string> keys;  ///< one for each level

  bool on_document_begin(bj::error_code&) { return true; }
  bool on_document_end(bj::error_code&) { return true; }
  bool on_object_begin(bj::error_code& error) {
    ++depth;
    keys.resize(static_cast<std::size_t>(depth));
    return self().opened(false) || stop(error);
  }
  bool on_object_end(std::size_t, bj::error_code& error) {
    const bool good = self().closed();
    keys.pop_back();
    --depth;
    return good || stop(error);
  }
  bool on_array_begin(bj::error_code& error) {
    ++depth;
    keys.resize(static_cast<std::size_t>(depth));
    return self().opened(true) || stop(error);
  }
  bool on_array_end(std::size_t, bj::error_code& error) {
    keys.pop_back();
    --depth;
    return self().list_closed() || stop(error);
  }
  bool on_key_part(bj::string_view part, std::size_t, bj::error_code&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_key(bj::string_view part, std::size_t, bj::error_code&) {
    text_.append(part.data(), part.size());
    keys.back() = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(bj::string_view part, std::size_t, bj::error_code&) {
    if (text_.size() < kKept) text_.append(part.data(), part.size());
    return true;
  }
  bool on_string(bj::string_view part, std::size_t, bj::error_code& error) {
    if (text_.size() < kKept) text_.append(part.data(), part.size());
    return self().string(std::exchange(text_, {})) || stop(error);
  }
  bool on_number_part(bj::string_view, bj::error_code&) { return true; }
  bool on_int64(std::int64_t value, bj::string_view, bj::error_code& error) {
    return (value >= 0 && self().number(static_cast<std::uint64_t>(value))) || stop(error);
  }
  bool on_uint64(std::uint64_t value, bj::string_view, bj::error_code& error) {
    return self().number(value) || stop(error);
  }
  bool on_double(double, bj::string_view, bj::error_code& error) { return self().other() || stop(error); }
  bool on_bool(bool, bj::error_code& error) { return self().other() || stop(error); }
  bool on_null(bj::error_code& error) { return self().other() || stop(error); }
  bool on_comment_part(bj::string_view, bj::error_code&) { return true; }
  bool on_comment(bj::string_view, bj::error_code&) { return true; }

 private:
  static constexpr std::size_t kKept = 4096;
  Derived& self() { return static_cast<Derived&>(*this); }
  static bool stop(bj::error_code& error) {
    error = bj::error::syntax;
    return false;
  }
  std::string text_;
};

/// {"__metadata__": {…}, "tensor": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
class HeaderEvents : public Events<HeaderEvents> {
 public:
  Tensors totals;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;
  std::optional<Error> problem;

  bool opened(bool list) {
    if (depth == 1) return !list;
    if (depth == 2) {
      if (list) return false;
      tensor_ = {};
      return true;
    }
    return depth == 3 && list && !in_metadata();
  }
  bool list_closed() { return true; }
  bool closed() {
    if (depth != 2 || in_metadata()) return true;
    return add(keys[0]);
  }
  bool string(std::string value) {
    if (depth != 2) return false;
    if (!in_metadata() && keys[1] == "dtype") tensor_.type = std::move(value);
    return true;
  }
  bool number(std::uint64_t value) {
    if (depth != 3) return false;
    if (keys[1] == "shape") {
      tensor_.shaped = true;
      if (tensor_.dimensions++ == 64 || !multiply(tensor_.numbers, value)) return false;
    } else if (keys[1] == "data_offsets") {
      if (tensor_.offsets == 2) return false;
      (tensor_.offsets++ == 0 ? tensor_.begin : tensor_.end) = value;
    }
    return true;
  }
  bool other() { return false; }

 private:
  struct Tensor {
    std::string type;
    std::uint64_t numbers = 1, begin = 0, end = 0;
    int dimensions = 0, offsets = 0;
    bool shaped = false;
  };
  bool in_metadata() const { return keys[0] == "__metadata__"; }

  bool add(const std::string& name) {
    const auto wrong = [&](std::string zh, std::string en) {
      problem = damaged(fmt::format("张量 {} {}", name.substr(0, 200), zh),
                        fmt::format("tensor {} {}", name.substr(0, 200), en));
      return false;
    };
    if (tensor_.type.empty() || tensor_.offsets != 2)
      return wrong("缺少 dtype 或 data_offsets", "lacks dtype or data_offsets");
    if (tensor_.begin > tensor_.end)
      return wrong("的 data_offsets 颠倒", "has data_offsets that run backwards");
    if (const auto bits = bits_of(tensor_.type)) {
      std::uint64_t total = tensor_.numbers;
      if (!multiply(total, *bits) || (total + 7) / 8 != tensor_.end - tensor_.begin)
        return wrong("的长度与其类型和形状不符", "has not the length that its type and shape need");
    }
    if (tensor_.numbers > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() / 2) -
                              static_cast<std::uint64_t>(totals.numbers))
      return wrong("过大", "is too large");
    const auto numbers = static_cast<std::int64_t>(tensor_.numbers);
    ++totals.count;
    totals.numbers += numbers;
    totals.by_type[bits_of(tensor_.type) ? tensor_.type : std::string("other")] += numbers;
    if (name.ends_with(".qweight")) totals.packed += numbers;
    if (name.ends_with(".qzeros") || name.ends_with(".scales") || name.ends_with(".g_idx"))
      totals.beside_packed += numbers;
    extents.emplace_back(tensor_.begin, tensor_.end);
    return true;
  }

  Tensor tensor_;
};

class IndexEvents : public Events<IndexEvents> {
 public:
  ShardIndex index;
  bool opened(bool list) { return depth < 32 && (depth > 1 || !list); }
  bool closed() { return true; }
  bool list_closed() { return true; }
  bool string(std::string value) {
    if (depth == 2 && keys[0] == "weight_map") {
      ++index.tensors;
      index.files.insert(std::move(value));
    }
    return index.files.size() <= kMaxShards;
  }
  bool number(std::uint64_t) { return true; }
  bool other() { return true; }
};

/// Feeds the bytes from `begin` to `end` to a parser, a chunk at a time.
template <class Handler>
Result<void> parse_range(bj::basic_parser<Handler>& parser, std::uint64_t begin, std::uint64_t end,
                         const ReadAt& read_at, const Error& malformed) {
  std::vector<char> chunk(kChunk);
  bj::error_code error;
  bool done = false;
  for (std::uint64_t at = begin; at < end;) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), end - at));
    const std::size_t got = TRY(read_at(at, std::span(chunk.data(), want)));
    if (got == 0) return malformed;
    std::size_t used = 0;
    if (!done) {
      used = parser.write_some(true, chunk.data(), got, error);
      if (error) return malformed;
      done = parser.done();
    }
    // After the value only padding may follow.
    for (; used < got; ++used)
      if (chunk[used] != ' ' && chunk[used] != '\n' && chunk[used] != '\r' && chunk[used] != '\t')
        return malformed;
    at += got;
  }
  if (!done) {
    parser.write_some(false, nullptr, 0, error);
    if (error || !parser.done()) return malformed;
  }
  return {};
}

bj::parse_options strict() {
  bj::parse_options options;
  options.max_depth = 32;
  return options;
}

/// All of the data belongs to exactly one tensor.
Result<void> check_extents(std::vector<std::pair<std::uint64_t, std::uint64_t>>& extents,
                           std::uint64_t data) {
  std::sort(extents.begin(), extents.end());
  std::uint64_t at = 0;
  for (const auto& [begin, end] : extents) {
    if (begin != at) return damaged("张量之间有重叠或空隙", "tensors overlap, or leave a gap");
    at = end;
  }
  if (at > data)
    return damaged(fmt::format("文件不完整：缺少 {} 字节", at - data),
                   fmt::format("the file is incomplete: {} bytes are missing", at - data));
  if (at < data)
    return damaged(fmt::format("文件末尾多出 {} 字节", data - at),
                   fmt::format("{} bytes follow after the last tensor", data - at));
  return {};
}

}  // namespace

Tensors& Tensors::operator+=(const Tensors& other) {
  count += other.count;
  numbers += other.numbers;
  packed += other.packed;
  beside_packed += other.beside_packed;
  for (const auto& [type, numbers_of_type] : other.by_type) by_type[type] += numbers_of_type;
  return *this;
}

ReadAt read_from(int fd) {
  return [fd](std::uint64_t offset, std::span<char> into) -> Result<std::size_t> {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t got =
          pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return system_error("read", errno);
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  };
}

Result<Tensors> read_safetensors(std::uint64_t size, const ReadAt& read_at) {
  unsigned char prefix[8] = {};
  const std::size_t got = TRY(read_at(0, std::span(reinterpret_cast<char*>(prefix), sizeof prefix)));
  if (got < sizeof prefix || size < sizeof prefix)
    return damaged("文件过短，不是 safetensors 文件", "too short to be a safetensors file");
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | prefix[i];
  if (length > kMaxSafetensorsHeader)
    return damaged("不是 safetensors 文件：文件头长度不合理",
                   "not a safetensors file: its header would be too long");
  if (length > size - sizeof prefix)
    return damaged("文件不完整：文件头被截断", "the file is incomplete: its header is cut off");

  const Error malformed =
      damaged("文件头不是合法的 safetensors 描述", "its header is not a valid description of tensors");
  bj::basic_parser<HeaderEvents> parser(strict());
  auto parsed = parse_range(parser, sizeof prefix, sizeof prefix + length, read_at, malformed);
  HeaderEvents& events = parser.handler();
  if (!parsed) return events.problem ? *events.problem : parsed.error();
  TRY(check_extents(events.extents, size - sizeof prefix - length));
  return std::move(events.totals);
}

Result<ShardIndex> read_shard_index(std::uint64_t size, const ReadAt& read_at) {
  const Error malformed = damaged("不是合法的分片索引", "not a valid index of shards");
  if (size > kMaxIndex) return malformed;
  bj::basic_parser<IndexEvents> parser(strict());
  TRY(parse_range(parser, 0, size, read_at, malformed));
  return std::move(parser.handler().index);
}

}  // namespace lathe::models
