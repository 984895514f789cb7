#include "gateway/heads.h"

#include <charconv>

namespace lathe::gateway {

using http::same_ignoring_case;

namespace {

enum class Kind { passed, hop, withheld };

/// Fields that speak of one connection only (RFC 9110 §7.6.1), and those the gateway writes itself or an
/// upstream must not see or be able to take for the gateway's own.
Kind kind_of(std::string_view name) {
  const auto is = [name](std::string_view other) { return same_ignoring_case(name, other); };
  switch (name.size()) {
    case 2:
      return is("te") ? Kind::hop : Kind::passed;
    case 4:
      return is("host") ? Kind::withheld : Kind::passed;
    case 6:
      return is("expect") ? Kind::withheld : Kind::passed;
    case 7:
      return is("upgrade") || is("trailer") ? Kind::hop : Kind::passed;
    case 9:
      if (is("forwarded") || is("x-real-ip")) return Kind::withheld;
      return Kind::passed;
    case 10:
      return is("connection") || is("keep-alive") ? Kind::hop : Kind::passed;
    case 12:
      return is("x-request-id") ? Kind::withheld : Kind::passed;
    case 13:
      return is("authorization") ? Kind::withheld : Kind::passed;
    case 14:
      return is("content-length") || is("http2-settings") ? Kind::hop : Kind::passed;
    case 15:
      return is("x-forwarded-for") ? Kind::withheld : Kind::passed;
    case 16:
      if (is("proxy-connection")) return Kind::hop;
      return is("x-forwarded-host") ? Kind::withheld : Kind::passed;
    case 17:
      if (is("transfer-encoding")) return Kind::hop;
      return is("x-forwarded-proto") ? Kind::withheld : Kind::passed;
    case 18:
      return is("proxy-authenticate") ? Kind::hop : Kind::passed;
    case 19:
      return is("proxy-authorization") ? Kind::hop : Kind::passed;
    default:
      return Kind::passed;
  }
}

void field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

void length_field(std::string& out, std::uint64_t length) {
  char digits[24];
  const auto [end, error] = std::to_chars(std::begin(digits), std::end(digits), length);
  field(out, "Content-Length", {digits, static_cast<std::size_t>(end - digits)});
}

bool usually_has_body(http::Method method) {
  return method == http::Method::post || method == http::Method::put || method == http::Method::patch;
}

}  // namespace

bool lists(std::string_view field, std::string_view word) {
  while (!field.empty()) {
    const auto comma = std::min(field.find(','), field.size());
    auto one = field.substr(0, comma);
    while (!one.empty() && (one.front() == ' ' || one.front() == '\t')) one.remove_prefix(1);
    while (!one.empty() && (one.back() == ' ' || one.back() == '\t')) one.remove_suffix(1);
    if (same_ignoring_case(one, word)) return true;
    field.remove_prefix(std::min(comma + 1, field.size()));
  }
  return false;
}

bool asks_for_websocket(const http::Request& request) {
  if (request.method != http::Method::get) return false;
  bool asked = false, listed = false;
  for (const auto& [name, value] : request.headers.list()) {
    if (name.size() == 7 && same_ignoring_case(name, "upgrade")) {
      if (asked || !same_ignoring_case(value, "websocket")) return false;
      asked = true;
    } else if (name.size() == 10 && same_ignoring_case(name, "connection")) {
      listed = listed || lists(value, "upgrade");
    }
  }
  return asked && listed;
}

std::string request_head(const RequestHead& from) {
  const http::Request& request = from.request;
  std::string out;
  out.reserve(1024);
  out.append(request.method_text).append(" ").append(from.target).append(" HTTP/1.1\r\n");
  field(out, "Host", from.authority);
  std::string connection;
  for (const auto& [name, value] : request.headers.list())
    if (name.size() == 10 && same_ignoring_case(name, "connection")) connection.append(value).append(",");
  for (const auto& [name, value] : request.headers.list()) {
    if (kind_of(name) != Kind::passed || (!connection.empty() && lists(connection, name))) continue;
    if (from.plain_answer && name.size() == 15 && same_ignoring_case(name, "accept-encoding")) continue;
    field(out, name, value);
  }
  field(out, "X-Forwarded-For", request.peer);
  field(out, "X-Request-Id", request.id);
  if (from.upgrade) out.append("Connection: Upgrade\r\nUpgrade: websocket\r\n");
  if (from.framing.kind == http::Framing::Kind::length)
    length_field(out, from.framing.length);
  else if (from.framing.kind == http::Framing::Kind::chunked)
    field(out, "Transfer-Encoding", "chunked");
  else if (usually_has_body(request.method))
    length_field(out, 0);
  return out += "\r\n";
}

std::string answer_head(const AnswerHead& from) {
  const auto& parser = from.parser;
  std::string out;
  out.reserve(1024);
  char status[4];
  std::to_chars(std::begin(status), std::end(status), parser.status());
  out.append("HTTP/1.1 ").append(status, 3).append(" ").append(parser.reason()).append("\r\n");
  std::string connection;
  for (std::size_t i = 0; i < parser.field_count(); ++i)
    if (const auto one = parser.field(i); one.name.size() == 10 && same_ignoring_case(one.name, "connection"))
      connection.append(one.value).append(",");
  const bool to_head = from.request.method == http::Method::head;
  for (std::size_t i = 0; i < parser.field_count(); ++i) {
    const auto [name, value] = parser.field(i);
    const bool length_of_head = to_head && same_ignoring_case(name, "content-length");
    if (!length_of_head && (kind_of(name) == Kind::hop || (!connection.empty() && lists(connection, name))))
      continue;
    if (name.size() == 12 && same_ignoring_case(name, "x-request-id")) continue;
    field(out, name, value);
  }
  field(out, "X-Request-Id", from.request.id);
  if (parser.status() == 101) {
    out.append("Connection: Upgrade\r\nUpgrade: websocket\r\n");
  } else if (from.framing.kind == http::Framing::Kind::length) {
    length_field(out, from.framing.length);
  } else if (from.chunked) {
    field(out, "Transfer-Encoding", "chunked");
  } else if (from.framing.kind == http::Framing::Kind::none && !to_head && parser.status() != 204 &&
             parser.status() != 304) {
    length_field(out, 0);
  }
  if (from.close) out.append("Connection: close\r\n");
  return out += "\r\n";
}

}  // namespace lathe::gateway
