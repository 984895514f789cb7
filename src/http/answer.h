#pragma once

#include <atomic>
#include <string>

#include "http/channel.h"
#include "http/message.h"
#include "http/parser.h"

namespace lathe::http {

inline constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

/// How one answer leaves.
struct AnswerFrame {
  enum class Body { none, text, file, stream_chunked, stream_length, stream_until_close };
  std::string head;  ///< status line and headers, with the empty line
  Body body = Body::none;
  std::uint64_t length = 0;
  bool close = false;  ///< the connection ends after this answer
};

/// `close`: the connection is to end after the answer in any case; `to_http10`: the client speaks 1.0.
AnswerFrame frame_answer(const Response& response, const Request& request, bool to_http10, bool close);

/// An answer of the server's own, for requests that cannot reach a handler.
Response plain_answer(int status, const Text& text, Language language);

/// The value of Date, now.
std::string_view date_now();
/// A client's X-Request-Id if it is one token of at most 64 characters, else one made here.
std::string request_id(std::string_view sent);

/// Writes a StreamBody through a channel in the given framing.
class ChannelWriter final : public BodyWriter {
 public:
  /// `draining` must outlive the writer; `socket` is asked whether the client is still there.
  ChannelWriter(Channel& channel, int socket, const AnswerFrame& frame, const std::atomic<bool>& draining)
      : channel_(channel), socket_(socket), frame_(frame), draining_(draining) {}
  Result<void> write(std::string_view bytes) override;
  bool gone() override;

  /// Ends the body; false if the client cannot be told that it is whole.
  bool finish();
  std::uint64_t written() const { return written_; }

 private:
  Channel& channel_;
  int socket_;
  const AnswerFrame& frame_;
  const std::atomic<bool>& draining_;
  std::uint64_t written_ = 0;
  bool broken_ = false;
};

}  // namespace lathe::http
