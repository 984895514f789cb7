#pragma once

#include <string>
#include <string_view>

#include "http/message.h"
#include "http/parser.h"

/// Heads as they are passed on: what speaks of one connection is taken out, what the gateway says itself is
/// put in.
namespace lathe::gateway {

struct RequestHead {
  const http::Request& request;
  std::string_view target;     ///< path and query, as they are to be sent
  std::string_view authority;  ///< for Host
  http::Framing framing;       ///< of the body that follows
  bool upgrade = false;        ///< to WebSocket
  bool plain_answer = false;   ///< ask for no compression: the answer is looked into
};
std::string request_head(const RequestHead& from);

struct AnswerHead {
  const http::ResponseHeadParser& parser;
  const http::Request& request;
  http::Framing framing;
  bool chunked = false;  ///< the body is sent in chunks
  bool close = false;    ///< the client's connection ends with the answer
};
std::string answer_head(const AnswerHead& from);

/// Does the client ask to go on with WebSocket (RFC 6455 §4.1)? Nothing else may be switched to: behind any
/// other protocol requests could hide.
bool asks_for_websocket(const http::Request& request);
/// Is `word` one of the members of this comma-separated list?
bool lists(std::string_view field, std::string_view word);

}  // namespace lathe::gateway
