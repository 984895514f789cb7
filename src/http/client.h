#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "http/message.h"

namespace lathe::http {

/// Where a server is: a TCP port, or a Unix socket.
struct Address {
  std::string host = "127.0.0.1";  ///< a name or an address; IPv6 without brackets
  std::uint16_t port = 80;
  std::string unix_path = {};  ///< instead of host and port

  /// Reads `http://host:port` or `host:port`, without a path.
  static Result<Address> parse(std::string_view text);
};

struct ClientRequest {
  Method method = Method::get;
  std::string target = "/";  ///< origin-form, encoded
  Headers headers;           ///< Host, framing and Connection are the client's own
  /// A StreamBody is sent chunked, or with the Content-Length in `headers`.
  std::variant<std::string, FileBody, StreamBody> body;
};

struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;
};

/// A blocking HTTP/1.1 client with one connection, kept open between requests. For one thread.
class Client {
 public:
  struct Options {
    std::chrono::milliseconds connect_timeout{5'000};
    std::chrono::milliseconds timeout{60'000};  ///< without a byte either way
    std::uint64_t max_body = 64 << 20;          ///< of a response that is collected
  };
  explicit Client(Address address);
  Client(Address address, Options options);
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  /// Any status is a success here. Errors: unavailable (cannot connect), cancelled (the connection broke),
  /// deadline_exceeded, too_large, invalid_argument (the answer is not HTTP). A request whose kept connection
  /// turns out to have been closed is sent once more if it is idempotent and its body can be repeated.
  Result<ClientResponse> send(const ClientRequest& request);

  /// The same with the body handed over as it arrives (the response's own stays empty). An error from `sink`
  /// ends the request and comes back.
  using Sink = std::function<Result<void>(const ClientResponse& head, std::string_view piece)>;
  Result<ClientResponse> send(const ClientRequest& request, const Sink& sink);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe::http
