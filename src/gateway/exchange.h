#pragma once

#include <array>
#include <string>
#include <string_view>

#include "gateway/gateway.h"
#include "gateway/routes.h"
#include "gateway/upstream_pool.h"
#include "http/connection.h"

namespace lathe::gateway {

/// What is sent upstream.
struct Forward {
  std::string target;  ///< path and query for the upstream, as they are to be sent
  std::string body;    ///< already read; only with `body_read`
  bool body_read = false;
};

/// One request at one upstream: sends it, and streams the answer back as it comes. Everything on the
/// connection's I/O thread.
class Exchange {
 public:
  Exchange(http::Connection& client, const http::Request& head, const Options& options, Lease lease)
      : client_(client), head_(head), options_(options), lease_(std::move(lease)) {}

  enum class Outcome {
    answered,   ///< an answer went to the client, whole or cut off
    untouched,  ///< no answer, and doing it again elsewhere does no harm: `error` says why
    failed,     ///< no answer, nothing sent to the client yet: `error` says why
    left,       ///< the client has gone
  };
  http::Task<Outcome> run(Forward& forward);
  const Error& error() const { return error_; }
  const Target* target() const { return lease_.get(); }

 private:
  http::Task<bool> connect();
  http::Task<Outcome> run_once(Forward& forward);
  std::string request_head(const Forward& forward) const;
  http::Task<bool> send_request(Forward& forward);
  http::Task<bool> send_body();
  http::Task<bool> write_upstream(std::string_view first, std::string_view second = {});
  http::Task<bool> read_upstream();
  http::Task<Outcome> relay_answer();
  http::Task<Outcome> relay_body(http::Framing framing, bool chunked_out, int status);
  std::string answer_head(const http::ResponseHeadParser& parser, http::Framing framing,
                          bool& chunked_out) const;
  void watch_client();
  void unwatch_client();
  void expect_within(std::chrono::milliseconds time);
  Outcome fail(Code code, Text text);

  http::Connection& client_;
  const http::Request& head_;
  const Options& options_;
  Lease lease_;
  UpstreamPool::Handle upstream_;
  std::string received_;  ///< from the upstream, not yet used
  /// Outlives the exchange in a callback that may come late.
  struct Watch {
    bool active = false;
    bool left = false;
  };
  std::shared_ptr<Watch> watch_ = std::make_shared<Watch>();
  bool body_touched_ = false;
  Error error_;
};

}  // namespace lathe::gateway
