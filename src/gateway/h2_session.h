#pragma once

#include <nghttp2/nghttp2.h>

#include <coroutine>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/loop.h"

namespace lathe::gateway {

using H2Fields = std::vector<std::pair<std::string, std::string>>;

/// One side of an HTTP/2 connection: nghttp2 between a byte stream and the streams' owner. On one loop's
/// thread. nghttp2 checks the framing, the field compression, the flow control and the messages' form.
class H2Session {
 public:
  H2Session(http::Loop& loop, bool server);
  virtual ~H2Session() = default;
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

  nghttp2_session* raw() const { return session_.get(); }
  http::Loop& loop() const { return loop_; }
  /// Something may have to be sent. Sends nothing itself.
  void kick();
  /// Sends what there is and no more, then ends.
  void close();
  bool closing() const { return closing_; }

  /// Submits fields (see nghttp2_submit_*); they are copied.
  int submit_answer(int stream, const H2Fields& fields, bool with_body);
  int submit_trailers(int stream, const H2Fields& fields);
  int submit_request(const H2Fields& fields, bool with_body);
  void reset(int stream, std::uint32_t error_code);
  /// Has the body source asked again.
  void resume(int stream);
  /// The bytes were passed on: the other side may send as many more.
  void consumed(int stream, std::size_t bytes);

 protected:
  /// Reads until the stream's end or `close`. `first` was read already.
  http::Task<> read_all(std::string_view first);
  /// Sends until closed and nothing is left.
  http::Task<> write_all();

  virtual http::Task<std::size_t> receive(std::span<char> into) = 0;
  virtual http::Task<bool> transmit(std::string_view bytes) = 0;

  // nghttp2's callbacks. Nothing may be sent or received from within; submitting is fine.
  virtual void on_begin(int stream) = 0;
  /// False refuses the stream.
  virtual bool on_field(int stream, std::string_view name, std::string_view value) = 0;
  virtual void on_headers(int stream, bool first, bool end) = 0;
  virtual void on_data(int stream, std::string_view bytes) = 0;
  virtual void on_data_end(int stream) = 0;
  virtual void on_closed(int stream, std::uint32_t error_code) = 0;
  virtual void on_go_away() {}
  /// Fills `into` with the stream's body.
  struct Source {
    std::size_t bytes = 0;
    bool end = false;
    const H2Fields* trailers = nullptr;  ///< with `end`
  };
  virtual Source on_source(int stream, std::span<char> into) = 0;

 private:
  struct Callbacks;
  struct Delete {
    void operator()(nghttp2_session* session) const { nghttp2_session_del(session); }
  };
  http::Loop& loop_;
  std::unique_ptr<nghttp2_session, Delete> session_;
  std::coroutine_handle<> writer_;
  bool kicked_ = false, closing_ = false;
};

}  // namespace lathe::gateway
