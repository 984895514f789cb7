#include "images/pull/public_address.h"

#include <netinet/in.h>

#include <cstdint>
#include <cstring>

namespace lathe::images::pull {

namespace {

struct Range {
  std::uint32_t network;
  int bits;
};
constexpr std::uint32_t ip(unsigned a, unsigned b, unsigned c, unsigned d) {
  return a << 24 | b << 16 | c << 8 | d;
}
constexpr Range kSpecial[] = {
    {ip(0, 0, 0, 0), 8},      {ip(10, 0, 0, 0), 8},     {ip(100, 64, 0, 0), 10}, {ip(127, 0, 0, 0), 8},
    {ip(169, 254, 0, 0), 16}, {ip(172, 16, 0, 0), 12},  {ip(192, 0, 0, 0), 24},  {ip(192, 0, 2, 0), 24},
    {ip(192, 88, 99, 0), 24}, {ip(192, 168, 0, 0), 16}, {ip(198, 18, 0, 0), 15}, {ip(198, 51, 100, 0), 24},
    {ip(203, 0, 113, 0), 24}, {ip(224, 0, 0, 0), 3},  // multicast, reserved, broadcast
};

bool is_public_v4(std::uint32_t address) {
  for (const Range& range : kSpecial)
    if (address >> (32 - range.bits) == range.network >> (32 - range.bits)) return false;
  return true;
}

bool is_public_v6(const std::uint8_t* b) {
  const auto word = [&](int i) { return static_cast<unsigned>(b[2 * i]) << 8 | b[2 * i + 1]; };
  const auto embedded = static_cast<std::uint32_t>(word(6) << 16 | word(7));
  static constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  static constexpr std::uint8_t kTranslated[12] = {0, 0x64, 0xff, 0x9b};
  if (std::memcmp(b, kMapped, 12) == 0 || std::memcmp(b, kTranslated, 12) == 0) return is_public_v4(embedded);
  if ((b[0] & 0xe0) != 0x20) return false;                  // not global unicast, 2000::/3
  if (word(0) == 0x2001 && word(1) < 0x200) return false;   // Teredo, benchmarks, ORCHID
  if (word(0) == 0x2001 && word(1) == 0xdb8) return false;  // documentation
  return word(0) != 0x2002 && word(0) != 0x3fff;            // 6to4, documentation
}

}  // namespace

bool is_public(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address, sizeof v4);
    return is_public_v4(ntohl(v4.sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof v6);
    return is_public_v6(v6.sin6_addr.s6_addr);
  }
  return false;
}

}  // namespace lathe::images::pull
