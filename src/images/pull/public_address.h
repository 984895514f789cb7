#pragma once

#include <sys/socket.h>

namespace lathe::images::pull {

/// Is this an address of the public Internet: none of this machine, its networks, or a special purpose
/// (https://www.iana.org/assignments/iana-ipv4-special-registry, iana-ipv6-special-registry), and none that
/// carries such an IPv4 address in an IPv6 one?
bool is_public(const sockaddr& address);

}  // namespace lathe::images::pull
