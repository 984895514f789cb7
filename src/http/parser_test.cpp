#include "http/parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "http/url.h"

namespace lathe::http {
namespace {

using namespace std::string_literals;
using State = HeadParser::State;
constexpr HeadLimits kLimits{1024, 10};

/// What a request head means, in one line: "METHOD target body alive" or the refusing status.
std::string meaning(const RequestHeadParser& parser, State state) {
  if (state == State::refused) return std::to_string(parser.refusal().status);
  if (state == State::more) return "more";
  const Framing framing = parser.framing();
  std::string out(parser.method());
  out += " " + std::string(parser.origin_target());
  if (framing.kind == Framing::Kind::length) out += " " + std::to_string(framing.length);
  if (framing.kind == Framing::Kind::chunked) out += " chunked";
  if (parser.expects_continue()) out += " expect";
  return out + (parser.keep_alive() ? " alive" : " close");
}

std::string meaning(std::string_view text) {
  RequestHeadParser parser(kLimits);
  const auto state = parser.parse(text);
  return meaning(parser, state);
}

struct Vector {
  std::string text, expected;
};

const std::string kHost = "Host: a\r\n";

std::vector<Vector> request_vectors() {
  const auto get = [](const std::string& rest) { return "GET / HTTP/1.1\r\n" + rest + "\r\n"; };
  return {
      // Good ones.
      {get(kHost), "GET / alive"},
      {get("Host:a\r\n"), "GET / alive"},
      {get("Host: \t a \t \r\n"), "GET / alive"},
      {get("HOST: a:80\r\n"), "GET / alive"},
      {get("Host: [::1]:80\r\n"), "GET / alive"},
      {get("Host:\r\n"), "GET / alive"},
      {"\r\n" + get(kHost), "GET / alive"},
      {get(kHost + "Connection: close\r\n"), "GET / close"},
      {get(kHost + "Connection: x, Close\r\n"), "GET / close"},
      {get(kHost + "Connection: keep-alive\r\n"), "GET / alive"},
      {get(kHost + "Content-Length: 0\r\n"), "GET / alive"},
      {get(kHost + "Content-Length: 12\r\n"), "GET / 12 alive"},
      {get(kHost + "content-length:007\r\n"), "GET / 7 alive"},
      {get(kHost + "Transfer-Encoding: chunked\r\n"), "GET / chunked alive"},
      {get(kHost + "transfer-encoding:CHUNKED\r\n"), "GET / chunked alive"},
      {get(kHost + "Expect: 100-Continue\r\nContent-Length: 1\r\n"), "GET / 1 expect alive"},
      {get(kHost + "X: \xe6\x95\xb0\r\n"), "GET / alive"},
      {get(kHost + "X:\r\n"), "GET / alive"},
      {get(kHost + "X: a\tb\r\n"), "GET / alive"},
      {get(kHost + "!#$%&'*+-.^_`|~09azAZ: a\r\n"), "GET / alive"},
      {"GET / HTTP/1.0\r\n\r\n", "GET / close"},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / close"},
      {"GET / HTTP/1.0\r\nExpect: something\r\n\r\n", "GET / close"},
      {"PATCH /a/b?c=d&e HTTP/1.1\r\n" + kHost + "\r\n", "PATCH /a/b?c=d&e alive"},
      {"PURGE /x HTTP/1.1\r\n" + kHost + "\r\n", "PURGE /x alive"},
      {"OPTIONS * HTTP/1.1\r\n" + kHost + "\r\n", "OPTIONS * alive"},
      {"GET http://a/b HTTP/1.1\r\n" + kHost + "\r\n", "GET /b alive"},
      {"GET HTTPS://A/b HTTP/1.1\r\n" + kHost + "\r\n", "GET /b alive"},
      {get(kHost) + "bytes of a body", "GET / alive"},
      // Not whole yet.
      {"", "more"},
      {"\r\n", "more"},
      {"GET / HTTP/1.1\r\n", "more"},
      {"GET / HTTP/1.1\r\nHost: a\r\n\r", "more"},
      // Lines that end otherwise than by CR LF, and control characters.
      {"GET / HTTP/1.1\nHost: a\n\n", "400"},
      {"GET / HTTP/1.1\r\nHost: a\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
      {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nX: a\r\r\nHost: a\r\n\r\n", "400"},
      {"\n" + get(kHost), "400"},
      {"\r\n\r\n" + get(kHost), "400"},
      {get(kHost + "X: a\0b\r\n"s), "400"},
      {get(kHost + "X: a\x01\r\n"s), "400"},
      {get(kHost + "X: a\x7f\r\n"s), "400"},
      {get(kHost + "X\0Y: a\r\n"s), "400"},
      {"GET /\0 HTTP/1.1\r\n"s + kHost + "\r\n", "400"},
      {"\x16\x03\x01\x02", "400"},
      // Header lines.
      {get(kHost + " folded: a\r\n"), "400"},
      {get(kHost + "X: a\r\n b\r\n"), "400"},
      {get(kHost + "X: a\r\n\tb\r\n"), "400"},
      {get(kHost + "X : a\r\n"), "400"},
      {get(kHost + "X\t: a\r\n"), "400"},
      {get(kHost + ": a\r\n"), "400"},
      {get(kHost + "no colon\r\n"), "400"},
      {get(kHost + "X(Y): a\r\n"), "400"},
      {get(kHost + "X\xc3\xa9: a\r\n"), "400"},
      // Host.
      {get(""), "400"},
      {get(kHost + kHost), "400"},
      {get("Host: a, b\r\n"), "400"},
      {get("Host: a b\r\n"), "400"},
      {get("Host: a/b\r\n"), "400"},
      {get("Host: a@b\r\n"), "400"},
      {"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "400"},
      {"GET http://b/ HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET http:/// HTTP/1.1\r\nHost:\r\n\r\n", "400"},
      {"GET http://a HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET http://u@a/ HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      // Framing: everything that two readers could frame differently.
      {get(kHost + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), "400"},
      {get(kHost + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), "400"},
      {get(kHost + "Content-Length: 1\r\nContent-Length: 1\r\n"), "400"},
      {get(kHost + "Content-Length: 1\r\nContent-Length: 2\r\n"), "400"},
      {get(kHost + "Content-Length: 1, 1\r\n"), "400"},
      {get(kHost + "Content-Length: +1\r\n"), "400"},
      {get(kHost + "Content-Length: -1\r\n"), "400"},
      {get(kHost + "Content-Length: 0x1\r\n"), "400"},
      {get(kHost + "Content-Length: 1 1\r\n"), "400"},
      {get(kHost + "Content-Length: 1.0\r\n"), "400"},
      {get(kHost + "Content-Length: \r\n"), "400"},
      {get(kHost + "Content-Length: 99999999999999999999\r\n"), "400"},
      {get(kHost + "Content-Length : 1\r\n"), "400"},
      {get(kHost + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "400"},
      {get(kHost + "Transfer-Encoding: gzip, chunked\r\n"), "501"},
      {get(kHost + "Transfer-Encoding: identity\r\n"), "501"},
      {get(kHost + "Transfer-Encoding: xchunked\r\n"), "501"},
      {get(kHost + "Transfer-Encoding: chunked, identity\r\n"), "501"},
      {get(kHost + "Transfer-Encoding: \"chunked\"\r\n"), "501"},
      {get(kHost + "Transfer-Encoding:\x0b"
                   "chunked\r\n"),
       "400"},
      {get(kHost + "Transfer-Encoding:\r\n"), "501"},
      {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
      {get(kHost + "Expect: 200-ok\r\n"), "417"},
      // Request lines.
      {"GET /\r\n\r\n", "400"},
      {"GET  / HTTP/1.1\r\n\r\n", "400"},
      {"GET / HTTP/1.1 \r\n\r\n", "400"},
      {" GET / HTTP/1.1\r\n\r\n", "400"},
      {"GET\t/ HTTP/1.1\r\n\r\n", "400"},
      {"GET /a b HTTP/1.1\r\n\r\n", "400"},
      {"GE(T / HTTP/1.1\r\n\r\n", "400"},
      {std::string(40, 'G') + " / HTTP/1.1\r\n\r\n", "400"},
      {"GET a HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET * HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"CONNECT a:80 HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET ftp://a/ HTTP/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET / HTTP/1.2\r\n" + kHost + "\r\n", "505"},
      {"GET / HTTP/2.0\r\n" + kHost + "\r\n", "505"},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
      {"GET / http/1.1\r\n" + kHost + "\r\n", "400"},
      {"GET / HTTP/1.1x\r\n" + kHost + "\r\n", "400"},
      {"GET / HTTP/11\r\n" + kHost + "\r\n", "400"},
      {"GET / HTTP/1,1\r\n" + kHost + "\r\n", "400"},
      // Limits.
      {get(kHost + "X: " + std::string(900, 'x') + "\r\n"), "GET / alive"},
      {get(kHost + "X: " + std::string(1100, 'x') + "\r\n"), "431"},
      {"GET /" + std::string(1100, 'x'), "414"},
      {get(kHost + "A: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\n"),
       "GET / alive"},
      {get(kHost + "A: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\nA: a\r\n"),
       "431"},
  };
}

TEST(HttpParser, MeansWhatItShould) {
  for (const auto& [text, expected] : request_vectors()) EXPECT_EQ(meaning(text), expected) << text;
}

TEST(HttpParser, MeansTheSameWhereverTheBytesAreSplit) {
  for (const auto& [text, expected] : request_vectors()) {
    for (std::size_t split = 0; split <= text.size(); ++split) {
      RequestHeadParser parser(kLimits);
      // The second time at another address, as after a buffer has grown.
      const std::string first = text.substr(0, split);
      auto state = parser.parse(first);
      if (state == State::more) state = parser.parse(text);
      ASSERT_EQ(meaning(parser, state), expected) << text << " split at " << split;
    }
    RequestHeadParser parser(kLimits);
    auto state = State::more;
    std::string grown;
    for (std::size_t size = 0; size <= text.size() && state == State::more; ++size) {
      grown = text.substr(0, size);
      state = parser.parse(grown);
    }
    EXPECT_EQ(meaning(parser, state), expected) << text << " byte by byte";
  }
}

TEST(HttpParser, GivesFieldsInOrder) {
  const std::string text = "GET / HTTP/1.1\r\nHost: a\r\nB:  two words \r\nA:\r\nB: 3\r\n\r\nrest";
  RequestHeadParser parser(kLimits);
  ASSERT_EQ(parser.parse(text), State::done);
  ASSERT_EQ(parser.field_count(), 4u);
  EXPECT_EQ(parser.field(1).name, "B");
  EXPECT_EQ(parser.field(1).value, "two words");
  EXPECT_EQ(parser.field(2).value, "");
  EXPECT_EQ(parser.field(3).value, "3");
  EXPECT_EQ(text.substr(parser.bytes()), "rest");
}

TEST(HttpParser, CanBeUsedAgain) {
  RequestHeadParser parser(kLimits);
  for (const auto& [text, expected] : request_vectors()) {
    parser.reset();
    const auto state = parser.parse(text);
    EXPECT_EQ(meaning(parser, state), expected) << text;
  }
}

std::string answer_meaning(std::string_view text, bool to_head = false) {
  ResponseHeadParser parser(kLimits);
  const auto state = parser.parse(text);
  if (state == State::refused) return "refused";
  if (state == State::more) return "more";
  const Framing framing = parser.framing(to_head);
  static const char* const kKinds[] = {"none", "length", "chunked", "until_close"};
  return std::to_string(parser.status()) + " " + std::string(parser.reason()) + " " +
         kKinds[static_cast<int>(framing.kind)] + (parser.keep_alive() ? " alive" : " close");
}

TEST(HttpParser, ReadsAnswers) {
  const std::string length = "Content-Length: 5\r\n", chunked = "Transfer-Encoding: chunked\r\n";
  EXPECT_EQ(answer_meaning("HTTP/1.1 200 OK\r\n" + length + "\r\n"), "200 OK length alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 200 OK\r\n" + length + "\r\n", true), "200 OK none alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 304 Not Modified\r\n" + length + "\r\n"), "304 Not Modified none alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 204\r\n\r\n"), "204  none alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 100 Continue\r\n\r\n"), "100 Continue none alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 200 OK\r\n" + chunked + "\r\n"), "200 OK chunked alive");
  EXPECT_EQ(answer_meaning("HTTP/1.1 200 \r\nConnection: close\r\n\r\n"), "200  until_close close");
  EXPECT_EQ(answer_meaning("HTTP/1.0 200 OK\r\n" + length + "\r\n"), "200 OK length close");
  EXPECT_EQ(answer_meaning("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + length + "\r\n"),
            "200 OK length alive");
  for (const std::string wrong :
       {"HTTP/1.1 200OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n"})
    EXPECT_EQ(answer_meaning(wrong), "refused") << wrong;
  EXPECT_EQ(answer_meaning("HTTP/1.1 200 OK\r\n" + length + chunked + "\r\n"), "refused");
}

/// The body and what is left over, or why not.
std::string dechunk(std::string text, std::size_t piece) {
  ChunkDecoder decoder;
  std::string out;
  std::size_t at = 0;
  while (at < text.size() && !decoder.done() && !decoder.failed()) {
    const auto step = decoder.decode(text.data() + at, std::min(piece, text.size() - at));
    out.append(text, at, step.produced);
    at += step.consumed;
  }
  if (decoder.failed()) return "failed";
  return decoder.done() ? out + "|" + text.substr(at) : "more";
}

TEST(ChunkDecoder, TakesChunksOff) {
  const std::string long_extension = "1;" + std::string(20'000, 'x') + "\r\na\r\n0\r\n\r\n";
  const std::vector<Vector> vectors{
      {"0\r\n\r\n", "|"},
      {"5\r\nhello\r\n0\r\n\r\nGET", "hello|GET"},
      {"1\r\na\r\nA\r\n0123456789\r\n00\r\n\r\n", "a0123456789|"},
      {"00000000000000a\r\n0123456789\r\n0\r\n\r\n", "0123456789|"},
      {"1;a=b;c=\"d\"\r\na\r\n0;x\r\n\r\n", "a|"},
      {"1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\nrest", "a|rest"},
      {"3\r\n\r\n\r\r\n0\r\n\r\n", "\r\n\r|"},
      {"", "more"},
      {"5\r\nhell", "more"},
      {"0\r\n", "more"},
      {"0\r\n\r", "more"},
      {"\r\n", "failed"},
      {"g\r\n", "failed"},
      {" 1\r\na\r\n0\r\n\r\n", "failed"},
      {"1 \r\na\r\n0\r\n\r\n", "failed"},
      {"-1\r\n", "failed"},
      {"+1\r\n", "failed"},
      {"0x1\r\n", "failed"},
      {"1\na\r\n0\r\n\r\n", "failed"},
      {"1\r\na\n0\r\n\r\n", "failed"},
      {"1\r\nab\r\n0\r\n\r\n", "failed"},
      {"1\r\na0\r\n\r\n", "failed"},
      {"1\rX", "failed"},
      {"1;a\nb\r\na\r\n0\r\n\r\n", "failed"},
      {"1;\x01\r\na\r\n0\r\n\r\n", "failed"},
      {"0\r\nA b\r\n\r\n", "failed"},
      {"0\r\n: b\r\n\r\n", "failed"},
      {"0\r\nA: b\n\r\n", "failed"},
      {"0\r\nA\r\n\r\n", "failed"},
      {"0\r\n folded\r\n\r\n", "failed"},
      {"0\r\n\n", "failed"},
      {"0\n\n", "failed"},
      {"ffffffffffffffff\r\n", "failed"},
      {"1000000000000000\r\n", "failed"},
      {long_extension, "failed"},
      {"0\r\nA: " + std::string(10'000, 'x') + "\r\n\r\n", "failed"},
  };
  for (const auto& [text, expected] : vectors)
    for (const std::size_t piece : {1u, 2u, 3u, 7u, 100'000u})
      EXPECT_EQ(dechunk(text, piece), expected) << text;
}

TEST(Url, DecodesTargetsOnceAndOnlyWhenUnambiguous) {
  const auto path = [](std::string_view target) {
    const auto read = parse_target(target);
    return read ? read->path : std::string("refused");
  };
  EXPECT_EQ(path("/"), "/");
  EXPECT_EQ(path("*"), "*");
  EXPECT_EQ(path("/a%20b/%E6%95%B0"), "/a b/\xe6\x95\xb0");
  EXPECT_EQ(path("/\xe6\x95\xb0"), "/\xe6\x95\xb0");
  EXPECT_EQ(path("/a%252e%252e/b"), "/a%2e%2e/b");
  EXPECT_EQ(path("/a+b"), "/a+b");
  EXPECT_EQ(path("/..."), "/...");
  EXPECT_EQ(path("/.hidden/a..b"), "/.hidden/a..b");
  EXPECT_EQ(path("/a//b"), "/a//b");
  for (const auto* wrong :
       {"",      "a",       "/%",         "/%2",    "/%zz",    "/%00",    "/%01",    "/%7f",
        "/%ff",  "/%c0%af", "/%ed%a0%80", "/a%2fb", "/a%2Fb",  "/.",      "/..",     "/../a",
        "/a/..", "/a/./b",  "/%2e%2e/a",  "/.%2E",  "/%2e",    "/a\\b",   "/a#b",    "/a{b}",
        "/a\"b", "/a<b",    "/\xff",      "/?a=%",  "/?a=%00", "/?a=%ff", "/?%zz=1", "/?a=<"})
    EXPECT_EQ(path(wrong), "refused") << wrong;
  const auto query = parse_target("/?a=1+2&b=%26%3D&c&=d&&a=3");
  ASSERT_TRUE(query.ok());
  const Pairs expected{{"a", "1 2"}, {"b", "&="}, {"c", ""}, {"", "d"}, {"a", "3"}};
  EXPECT_EQ(query->query, expected);
}

TEST(Url, EncodesWhatItDecodes) {
  std::string all;
  for (int c = 1; c < 128; ++c) all += static_cast<char>(c);
  all += "\xe6\x95\xb0";
  EXPECT_EQ(percent_decode(percent_encode(all)), all);
  EXPECT_EQ(percent_encode("a b/\xe6"), "a%20b%2F%E6");
  EXPECT_EQ(percent_encode("a/b", "/"), "a/b");
}

TEST(Url, ChoosesTheLanguage) {
  EXPECT_EQ(preferred_language(""), Language::zh);
  EXPECT_EQ(preferred_language("fr, *"), Language::zh);
  EXPECT_EQ(preferred_language("en"), Language::en);
  EXPECT_EQ(preferred_language("EN-us,zh;q=0.5"), Language::en);
  EXPECT_EQ(preferred_language("en;q=0.5, zh-CN;q=0.9"), Language::zh);
  EXPECT_EQ(preferred_language("zh;q=0, en;q=0.1"), Language::en);
  EXPECT_EQ(preferred_language(";;;,,q="), Language::zh);
}

}  // namespace
}  // namespace lathe::http
