// What the gateway writes of what it read: a head that was in order is so after it too, framed the same way,
// and nothing is found in it that was not there. Token counts do not depend on how a body is cut.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "gateway/heads.h"
#include "gateway/usage_scanner.h"

namespace {

using namespace lathe;
using State = http::HeadParser::State;

void require(bool holds) {
  if (!holds) std::abort();
}

bool same(const http::Framing& a, const http::Framing& b) {
  return a.kind == b.kind && a.length == b.length;
}

void check_answer(const std::string& text, bool chunked) {
  http::ResponseHeadParser parser({64 * 1024, 200});
  if (parser.parse(text) != State::done || parser.status() < 200) return;
  http::Request request;
  request.method_text = "GET";
  request.id = "id";
  const auto framing = parser.framing(false);
  const bool stream =
      framing.kind == http::Framing::Kind::chunked || framing.kind == http::Framing::Kind::until_close;
  const std::string head = gateway::answer_head({.parser = parser,
                                                 .request = request,
                                                 .framing = framing,
                                                 .chunked = stream && chunked,
                                                 .close = !chunked});
  http::ResponseHeadParser again({128 * 1024, 300});
  require(again.parse(head) == State::done && again.bytes() == head.size());
  require(again.status() == parser.status() && again.field_count() <= parser.field_count() + 3);
  const http::Framing wanted = !stream   ? framing
                               : chunked ? http::Framing{http::Framing::Kind::chunked, 0}
                                         : http::Framing{http::Framing::Kind::until_close, 0};
  require(same(again.framing(false), wanted));
}

void check_request(const std::string& text) {
  http::RequestHeadParser parser({64 * 1024, 200});
  if (parser.parse(text) != State::done) return;
  http::Request request;
  request.method_text = parser.method();
  request.method = http::method_named(parser.method());
  for (std::size_t i = 0; i < parser.field_count(); ++i)
    request.headers.add(std::string(parser.field(i).name), std::string(parser.field(i).value));
  request.peer = "127.0.0.1";
  request.id = "id";
  const std::string head = gateway::request_head({.request = request,
                                                  .target = "/x",
                                                  .authority = "h:1",
                                                  .framing = parser.framing(),
                                                  .upgrade = gateway::asks_for_websocket(request)});
  http::RequestHeadParser again({128 * 1024, 300});
  require(again.parse(head) == State::done && again.bytes() == head.size());
  require(again.method() == parser.method() && again.target() == "/x");
  require(same(again.framing(), parser.framing()));
}

void check_usage(const std::string& text, std::size_t piece) {
  gateway::UsageScanner whole, parts;
  whole.feed(text);
  for (std::size_t at = 0; at < text.size(); at += piece)
    parts.feed(std::string_view(text).substr(at, piece));
  require(whole.found().has_value() == parts.found().has_value());
  if (!whole.found()) return;
  require(whole.found()->prompt_tokens == parts.found()->prompt_tokens);
  require(whole.found()->completion_tokens == parts.found()->completion_tokens);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_answer(text, data[0] % 2 != 0);
  check_request(text);
  check_usage(text, data[0] % 16 + 1);
  return 0;
}
