#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/gateway.h"
#include "gateway/routes.h"
#include "gateway/upstream_pool.h"
#include "gateway/usage_scanner.h"
#include "http/connection.h"

namespace lathe::gateway {

/// What is sent upstream.
struct Forward {
  std::string target;  ///< path and query for the upstream, as they are to be sent
  std::string body;    ///< already read; only with `body_read`
  bool body_read = false;
  bool count_tokens = false;  ///< the answer may say `usage`
};

/// One request at one upstream: sends it, and streams the answer back as it comes. Everything on the
/// connection's I/O thread.
class Exchange {
 public:
  Exchange(http::Connection& client, const http::Request& head, const Options& options, Lease lease)
      : client_(client),
        head_(head),
        options_(options),
        lease_(std::move(lease)),
        pool_(client.loop().local<UpstreamPool>()) {}
  ~Exchange() { client_.forget_leaving(); }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  enum class Outcome {
    answered,   ///< an answer went to the client, whole or cut off
    untouched,  ///< no answer, and doing it again elsewhere does no harm: `error` says why
    failed,     ///< no answer, nothing sent to the client yet: `error` says why
    left,       ///< the client has gone
  };
  http::Task<Outcome> run(Forward& forward);
  const Error& error() const { return error_; }
  const Lease& lease() const { return lease_; }
  const std::optional<Usage>& usage() const { return usage_.found(); }

 private:
  /// Bytes from the upstream, not yet used. Memory is held only while there are some.
  class Received {
   public:
    std::string_view view() const { return {data_.get() + begin_, end_ - begin_}; }
    std::span<char> bytes() { return {data_.get() + begin_, end_ - begin_}; }
    bool empty() const { return begin_ == end_; }
    std::span<char> room();
    void add(std::size_t bytes) { end_ += bytes; }
    void consume(std::size_t bytes);

   private:
    std::unique_ptr<char[]> data_;
    std::size_t capacity_ = 0, begin_ = 0, end_ = 0;
  };
  /// A request body on its way while the answer may come already.
  struct Sending {
    bool running = false, failed = false;
    std::coroutine_handle<> joining;
  };

  http::Task<Outcome> run_once(const Forward& forward);
  http::Task<bool> connect();
  http::Task<bool> send_body();
  http::Task<> join_sending();
  http::Task<bool> read_upstream();
  http::Task<Outcome> relay_answer();
  http::Task<Outcome> relay_body(http::Framing framing, bool chunked_out, int status);
  http::Task<bool> pass_on(std::string_view piece, bool chunked, bool last);
  http::Task<Outcome> tunnel();
  http::Task<> pump_to_upstream();
  Outcome cut_short(int status);
  Outcome broken_connection();
  void note_left();
  bool may_repeat() const;
  Outcome fail(Code code, Text text);

  http::Connection& client_;
  const http::Request& head_;
  const Options& options_;
  Lease lease_;
  UpstreamPool& pool_;
  UpstreamPool::Handle upstream_;
  Received received_;
  Sending sending_;
  UsageScanner usage_;
  bool left_ = false, body_touched_ = false, upgrade_ = false, scans_ = false;
  Error error_;
};

}  // namespace lathe::gateway
