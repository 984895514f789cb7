#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>

#include "base/result.h"
#include "http/server.h"

namespace lathe::http {

/// A server's TLS settings: TLS 1.2 and newer, the given chain and key, HTTP/1.1 by ALPN.
Result<std::unique_ptr<boost::asio::ssl::context>> make_tls(const TlsOptions& options);

}  // namespace lathe::http
