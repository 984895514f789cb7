#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/h2_session.h"
#include "gateway/routes.h"
#include "http/message.h"

namespace lathe::gateway {

/// The bytes of one direction of a call that have come and not gone yet. Flow control keeps them few.
struct H2Flow {
  std::string bytes;
  std::size_t taken = 0;  ///< of `bytes`
  bool ended = false;
  H2Fields trailers;

  bool empty() const { return taken == bytes.size(); }
  void add(std::string_view more) {
    if (empty()) {
      bytes.clear();
      taken = 0;
    }
    bytes.append(more);
  }
  std::size_t take(std::span<char> into) {
    const std::size_t size = std::min(into.size(), bytes.size() - taken);
    std::copy_n(bytes.data() + taken, size, into.data());
    taken += size;
    return size;
  }
};

/// One call on its way through: a stream of the client's connection and one of an upstream's, each with the
/// session that has it until the stream is closed.
struct H2Call {
  // Filled in by the client's side.
  H2Session* front = nullptr;
  int front_stream = 0;
  http::Request head;
  std::size_t head_bytes = 0;
  H2Flow up;                        ///< towards the upstream
  std::function<void()> when_left;  ///< called once when the client's stream is closed
  Moment began{};
  int status = 0, grpc_status = -1;  ///< as told to the client
  std::string note;                  ///< for the access log
  Moment last = Moment::max();       ///< the client's own deadline
  http::Loop::TimerId timer{};       ///< for it

  // By the upstream's.
  H2Session* back = nullptr;
  int back_stream = 0;
  H2Fields collected;
  H2Flow down;
  bool answered = false;
  Lease lease;
  Moment deadline = Moment::max();

  bool left() const { return front == nullptr; }
  bool over() const { return left() || down.ended; }  ///< nobody waits for an answer
  /// Ends the call towards the client with this error, as far as there is still one and it has not ended.
  void fail(const Error& error);
};

/// The answer of a call that fails at the gateway: in gRPC's form where it asked so, as HTTP else.
H2Fields failure_fields(const http::Request& head, const Error& error);
/// What `grpc-timeout` says; nothing where there is none, or it is malformed.
std::optional<std::chrono::nanoseconds> grpc_timeout(std::string_view text);
/// The same time as `grpc-timeout`, as exactly as eight digits can say it.
std::string grpc_timeout_text(std::chrono::nanoseconds time);
/// https://grpc.github.io/grpc/core/md_doc_statuscodes.html
int grpc_status_of(Code code);
bool is_grpc(const http::Request& head);

}  // namespace lathe::gateway
