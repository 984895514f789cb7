#include "base/ids.h"

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace lathe {

namespace {

constexpr char kHex[] = "0123456789abcdef";

void fill_random(unsigned char* out, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = getrandom(out + done, size - done, 0);
    if (got < 0) throw std::runtime_error("getrandom failed");
    done += static_cast<std::size_t>(got);
  }
}

/// 60 ordered bits: the milliseconds, then a 12-bit counter, as RFC 9562 §6.2 method 1 does it.
std::uint64_t next_tick(std::uint64_t now_ms) {
  static std::atomic<std::uint64_t> last{0};
  std::uint64_t seen = last.load();
  std::uint64_t mine;
  do {
    mine = std::max(now_ms << 12, seen + 1);
  } while (!last.compare_exchange_weak(seen, mine));
  return mine;
}

}  // namespace

std::string random_hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  fill_random(reinterpret_cast<unsigned char*>(raw.data()), bytes);
  std::string out;
  out.reserve(bytes * 2);
  for (unsigned char c : raw) {
    out += kHex[c >> 4];
    out += kHex[c & 15];
  }
  return out;
}

std::string Uuid7Source::next() {
  const auto now = static_cast<std::uint64_t>(clock_.now().time_since_epoch().count());
  const std::uint64_t tick = next_tick(now);
  std::string out;
  out.reserve(32);
  for (int shift = 56; shift >= 12; shift -= 4) out += kHex[(tick >> shift) & 15];  // 48 bits of time
  out += '7';
  for (int shift = 8; shift >= 0; shift -= 4) out += kHex[(tick >> shift) & 15];
  std::string tail = random_hex(8);
  tail[0] = "89ab"[static_cast<unsigned char>(tail[0]) & 3];
  return out + tail;
}

std::string dashed(std::string_view id) {
  if (id.size() != 32) return std::string(id);
  std::string out(id);
  for (std::size_t at : {20, 16, 12, 8}) out.insert(at, 1, '-');
  return out;
}

std::string undashed(std::string_view id) {
  if (id.size() != 36) return std::string(id);
  std::string out(id);
  std::erase(out, '-');
  return out.size() == 32 ? out : std::string(id);
}

}  // namespace lathe
