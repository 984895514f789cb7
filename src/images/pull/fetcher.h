#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace lathe::images::pull {

/// GET over HTTP/1.1 and TLS, by libcurl. That is loaded when the first one is made: whoever pulls nothing
/// starts as fast, and is as small, as without it. Certificates are checked against the machine's
/// authorities, or those in SSL_CERT_FILE. No redirect is followed, no proxy used, no cookie or credential of
/// the machine's. For one thread.
class Fetcher {
 public:
  /// failed_precondition where the machine has no libcurl.
  static Result<std::unique_ptr<Fetcher>> make();
  ~Fetcher();

  struct Request {
    std::string url;
    std::vector<std::string> headers;  ///< `Name: value`
    bool any_address = false;          ///< false: public ones only, whatever the name resolves to
  };
  struct Head {
    int status = 0;
    std::vector<std::pair<std::string, std::string>> headers;  ///< names in lower case
    std::string_view get(std::string_view name) const;  ///< the first of that name; "" if there is none
  };
  /// Takes the body as it arrives; an error ends the request and comes back.
  using Sink = std::function<Result<void>(const Head& head, std::string_view piece)>;
  /// Any status is a success here. Errors: unavailable (not reached, broken off, slower than 10 KiB/s for a
  /// minute), permission_denied (the address), failed_precondition (the certificate), cancelled (`go_on` said
  /// no), too_large (the headers).
  Result<Head> get(const Request& request, const Sink& sink, const std::function<bool()>& go_on);

 private:
  struct State;
  explicit Fetcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace lathe::images::pull
