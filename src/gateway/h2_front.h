#pragma once

#include <map>
#include <memory>

#include "gateway/h2_call.h"
#include "gateway/h2_upstream.h"
#include "gateway/router.h"
#include "http/connection.h"

namespace lathe::gateway {

/// A client's HTTP/2 connection.
class H2Front final : public H2Session {
 public:
  H2Front(http::Connection& client, const Options& options, const Hooks& hooks, Router& router);
  /// Until the client leaves or the server drains.
  http::Task<> serve();

 private:
  http::Task<> place(std::shared_ptr<H2Call> call);
  http::Task<Result<void>> try_place(std::shared_ptr<H2Call> call);
  void finish_one();
  void set_deadline(const std::shared_ptr<H2Call>& call);
  void part_with(H2Call& call);
  void log(const H2Call& call) const;

  http::Task<std::size_t> receive(std::span<char> into) override;
  http::Task<bool> transmit(std::string_view bytes) override;
  void on_begin(int stream) override;
  bool on_field(int stream, std::string_view name, std::string_view value) override;
  void on_headers(int stream, bool first, bool end) override;
  void on_data(int stream, std::string_view bytes) override;
  void on_data_end(int stream) override;
  void on_closed(int stream, std::uint32_t error_code) override;
  Source on_source(int stream, std::span<char> into) override;
  H2Call* find(int stream);

  http::Connection& client_;
  const Options& options_;
  const Hooks& hooks_;
  Router& router_;
  std::map<int, std::shared_ptr<H2Call>> calls_;
  int running_ = 0;  ///< coroutines that refer to this
  std::coroutine_handle<> joining_;
};

}  // namespace lathe::gateway
