#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "gateway/h2_call.h"
#include "http/socket.h"

namespace lathe::gateway {

/// A connection to an upstream that speaks HTTP/2, shared by many calls.
class H2Upstream final : public H2Session, public std::enable_shared_from_this<H2Upstream> {
 public:
  H2Upstream(http::Loop& loop, Fd fd, std::string authority, const Options& options);

  /// Connects, and serves its calls until it is closed; keeps itself alive meanwhile.
  void start();
  /// False once it cannot be reached or is closed.
  http::Task<bool> connected();
  bool has_room() const;
  bool dead() const { return dead_ || closing(); }
  /// Sends the call's request there; its answer goes to the call's front. False: nothing was sent.
  bool take(const std::shared_ptr<H2Call>& call, const std::string& path);
  /// The client has gone.
  void cancel(H2Call& call);

 private:
  http::Task<> serve();
  void sweep();
  void end(H2Call& call, const Error& error);
  void expect_more(H2Call& call) const;
  void pass_answer(H2Call& call, bool end);
  H2Call* find(int stream);

  http::Task<std::size_t> receive(std::span<char> into) override;
  http::Task<bool> transmit(std::string_view bytes) override;
  void on_begin(int stream) override;
  bool on_field(int stream, std::string_view name, std::string_view value) override;
  void on_headers(int stream, bool first, bool end) override;
  void on_data(int stream, std::string_view bytes) override;
  void on_data_end(int stream) override;
  void on_closed(int stream, std::uint32_t error_code) override;
  void on_go_away() override { leaving_ = true; }
  Source on_source(int stream, std::span<char> into) override;

  http::Socket socket_;
  const std::string authority_;
  const Options& options_;
  std::map<int, std::shared_ptr<H2Call>> calls_;
  std::vector<std::coroutine_handle<>> awaiting_;
  Moment idle_since_;
  bool connected_ = false, dead_ = false, leaving_ = false, writing_ = false;
  std::coroutine_handle<> joining_;
};

/// The HTTP/2 upstream connections of one I/O thread.
class H2Pool {
 public:
  explicit H2Pool(http::Loop& loop) : loop_(loop) {}
  /// One with room for a call, perhaps still connecting; nothing if none can be made.
  std::shared_ptr<H2Upstream> get(const Target& target, const Options& options);

 private:
  http::Loop& loop_;
  std::unordered_map<std::uint64_t, std::vector<std::weak_ptr<H2Upstream>>>
      open_;  ///< by the target's serial
};

}  // namespace lathe::gateway
