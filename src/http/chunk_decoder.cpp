#include <algorithm>
#include <cstring>

#include "http/parser.h"

namespace lathe::http {

namespace {

// Extensions mean nothing to anybody; without a bound on their sum a body of one-byte chunks would cost
// thousands of times its size.
constexpr std::size_t kMaxExtensionBytes = 16 * 1024;
constexpr std::size_t kMaxTrailerBytes = 8 * 1024;
constexpr std::size_t kMaxDigits = 15;

bool value_byte(unsigned char c) {
  return c == '\t' || (c >= 0x20 && c != 0x7f);
}

}  // namespace

ChunkDecoder::Step ChunkDecoder::decode(char* data, std::size_t size) {
  std::size_t in = 0, out = 0;
  while (in < size && state_ != State::done && state_ != State::failed) {
    if (state_ != State::data) {
      state_ = step(static_cast<unsigned char>(data[in++]));
      continue;
    }
    const auto run = static_cast<std::size_t>(std::min<std::uint64_t>(left_, size - in));
    if (in != out) std::memmove(data + out, data + in, run);
    in += run;
    out += run;
    left_ -= run;
    if (left_ == 0) state_ = State::data_cr;
  }
  return {in, out};
}

ChunkDecoder::State ChunkDecoder::size_digit(unsigned char c) {
  int digit = -1;
  if (c >= '0' && c <= '9') digit = c - '0';
  if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') digit = (c | 0x20) - 'a' + 10;
  if (digit < 0 || ++digits_ > kMaxDigits) return State::failed;
  left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
  return State::size;
}

ChunkDecoder::State ChunkDecoder::step(unsigned char c) {
  switch (state_) {
    case State::size_first:
      left_ = digits_ = 0;
      return size_digit(c);
    case State::size:
      if (c == '\r') return State::size_lf;
      return c == ';' ? State::extension : size_digit(c);
    case State::extension:
      if (c == '\r') return State::size_lf;
      return value_byte(c) && ++extension_bytes_ <= kMaxExtensionBytes ? State::extension : State::failed;
    case State::size_lf:
      if (c != '\n') return State::failed;
      return left_ > 0 ? State::data : State::trailer_first;
    case State::data_cr:
      return c == '\r' ? State::data_lf : State::failed;
    case State::data_lf:
      return c == '\n' ? State::size_first : State::failed;
    case State::trailer_first:
      if (c == '\r') return State::last_lf;
      [[fallthrough]];
    case State::trailer_name: {
      if (++trailer_bytes_ > kMaxTrailerBytes) return State::failed;
      const char one = static_cast<char>(c);
      if (c == ':' && state_ == State::trailer_name) return State::trailer_value;
      return is_token({&one, 1}) ? State::trailer_name : State::failed;
    }
    case State::trailer_value:
      if (c == '\r') return State::trailer_lf;
      return value_byte(c) && ++trailer_bytes_ <= kMaxTrailerBytes ? State::trailer_value : State::failed;
    case State::trailer_lf:
      return c == '\n' ? State::trailer_first : State::failed;
    case State::last_lf:
      return c == '\n' ? State::done : State::failed;
    case State::data:
    case State::done:
    case State::failed:
      break;
  }
  return state_;
}

}  // namespace lathe::http
