// Heads and chunked bodies: whatever the bytes and however they are split, the parsers agree with themselves.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "http/parser.h"
#include "http/url.h"

namespace {

using namespace lathe::http;
using State = HeadParser::State;

void require(bool holds) {
  if (!holds) std::abort();
}

template <class Parser>
void check_head(const std::string& text, std::size_t split) {
  Parser whole({4096, 50}), parts({4096, 50});
  const auto state = whole.parse(text);
  const std::string first = text.substr(0, split);
  auto split_state = parts.parse(first);
  const bool early = split_state != State::more;
  if (!early) split_state = parts.parse(text);
  require(split_state == state);
  if (state == State::refused) require(whole.refusal().status == parts.refusal().status);
  if (state != State::done) return;
  require(whole.bytes() == parts.bytes() && whole.bytes() <= text.size());
  require(whole.field_count() == parts.field_count());
  for (std::size_t i = 0; i < whole.field_count(); ++i) {
    require(is_token(whole.field(i).name) && is_field_value(whole.field(i).value));
    if (!early) require(whole.field(i).value == parts.field(i).value);
  }
}

void check_chunks(const std::string& text, std::size_t piece) {
  std::string one = text, two = text, out;
  ChunkDecoder whole, parts;
  const auto step = whole.decode(one.data(), one.size());
  require(step.produced <= step.consumed && step.consumed <= text.size());
  std::size_t at = 0;
  while (at < two.size() && !parts.done() && !parts.failed()) {
    const auto some = parts.decode(two.data() + at, std::min(piece, two.size() - at));
    out.append(two, at, some.produced);
    at += some.consumed;
  }
  require(whole.done() == parts.done() && whole.failed() == parts.failed());
  require(out == one.substr(0, step.produced) && at == step.consumed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t split = data[0] * 256u + data[1];
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  check_head<RequestHeadParser>(text, std::min(split, text.size()));
  check_head<ResponseHeadParser>(text, std::min(split, text.size()));
  check_chunks(text, split % 64 + 1);
  if (const auto target = parse_target(text.substr(0, 2000)))
    require(target->path == "*" ||
            (target->path.starts_with('/') && target->path.find('\0') == std::string::npos));
  (void)preferred_language(text);
  return 0;
}
