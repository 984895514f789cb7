#include <bit>
#include <cmath>
#include <cstring>

#include "jobs/progress/trainer_output.h"

namespace lathe::progress {

namespace {

/// Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding), as far as it is needed.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  /// Steps to the next field; false at the end or at damage.
  bool next() {
    std::uint64_t tag = 0;
    if (rest_.empty() || !varint(tag)) return false;
    field = static_cast<unsigned>(tag >> 3);
    switch (tag & 7) {
      case 0:
        return varint(number);
      case 1:
        return take(8);
      case 2: {
        std::uint64_t length = 0;
        return varint(length) && take(length);
      }
      case 5:
        return take(4);
      default:
        return false;
    }
  }
  unsigned field = 0;
  std::uint64_t number = 0;  ///< of a varint
  std::string_view bytes;    ///< of anything else

  double as_double() const { return bytes.size() == 8 ? load<double>() : 0; }
  double as_float() const { return bytes.size() == 4 ? static_cast<double>(load<float>()) : NAN; }

 private:
  template <class T>
  T load() const {
    T out;
    std::memcpy(&out, bytes.data(), sizeof out);
    return out;
  }
  bool take(std::uint64_t length) {
    if (length > rest_.size()) return false;
    bytes = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
  }
  bool varint(std::uint64_t& out) {
    out = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      out |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  std::string_view rest_;
};

/// TensorProto: the first float, from float_val (5) or tensor_content (4) of a DT_FLOAT.
double first_float(std::string_view tensor) {
  double out = NAN;
  for (Message m(tensor); m.next();)
    if ((m.field == 5 || m.field == 4) && m.bytes.size() >= 4) {
      float value;
      std::memcpy(&value, m.bytes.data(), sizeof value);
      out = static_cast<double>(value);
    }
  return out;
}

void read_summary(std::string_view summary, std::int64_t step, Time time, Findings& out) {
  for (Message values(summary); values.next();) {
    if (values.field != 1) continue;
    std::string tag;
    double value = NAN;
    for (Message m(values.bytes); m.next();) {
      if (m.field == 1) tag = m.bytes;
      if (m.field == 2) value = m.as_float();
      if (m.field == 8) value = first_float(m.bytes);
    }
    if (!tag.empty() && tag.size() <= 200 && std::isfinite(value))
      out.metrics.push_back({tag, value, step, time});
  }
}

void read_event(std::string_view event, Findings& out) {
  double wall = 0;
  std::int64_t step = 0;
  std::string_view summary;
  for (Message m(event); m.next();) {
    if (m.field == 1) wall = m.as_double();
    if (m.field == 2) step = static_cast<std::int64_t>(m.number);
    if (m.field == 5) summary = m.bytes;
  }
  if (!(wall > 0 && wall < 1e11)) wall = 0;
  read_summary(summary, step, Time{Duration{static_cast<std::int64_t>(wall * 1000)}}, out);
  if (!summary.empty()) out.step = step;
}

}  // namespace

Findings read_event_file(std::string_view bytes, std::size_t& consumed) {
  static_assert(std::endian::native == std::endian::little, "records are little-endian");
  constexpr std::size_t kHeader = 12, kFooter = 4;  // length and its CRC; the CRC of the data
  Findings out;
  consumed = 0;
  while (bytes.size() - consumed >= kHeader) {
    std::uint64_t length;
    std::memcpy(&length, bytes.data() + consumed, sizeof length);
    if (length > bytes.size() || bytes.size() - consumed < kHeader + length + kFooter) break;
    read_event(bytes.substr(consumed + kHeader, length), out);
    consumed += kHeader + length + kFooter;
  }
  return out;
}

}  // namespace lathe::progress
