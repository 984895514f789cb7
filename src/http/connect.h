#pragma once

#include <chrono>

#include "http/client.h"

namespace lathe::http {

/// A connected socket (TCP_NODELAY, close-on-exec, non-blocking), tried at each of the host's addresses in
/// turn. Owned by the caller. Errors: unavailable, deadline_exceeded.
Result<int> connect_to(const Address& address, std::chrono::milliseconds timeout);

}  // namespace lathe::http
