#include "http/answer.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <charconv>
#include <ctime>

namespace lathe::http {

namespace {

constexpr std::pair<int, std::string_view> kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

std::string_view reason(int status) {
  for (const auto& [number, text] : kReasons)
    if (number == status) return text;
  return "";
}

bool framing_header(std::string_view name) {
  return same_ignoring_case(name, "Content-Length") || same_ignoring_case(name, "Transfer-Encoding") ||
         same_ignoring_case(name, "Connection") || same_ignoring_case(name, "Date") ||
         same_ignoring_case(name, "Server") || same_ignoring_case(name, "X-Request-Id");
}

/// Values that come from stored data must not be able to begin a header of their own.
void append_value(std::string& out, std::string_view value) {
  if (is_field_value(value)) {
    out += value;
    return;
  }
  for (const char c : value) out += is_field_value({&c, 1}) ? c : ' ';
}

std::optional<std::uint64_t> declared_length(const Response& response) {
  const auto text = response.headers.get("Content-Length");
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

void choose_body(AnswerFrame& frame, const Response& response, bool to_http10) {
  using Body = AnswerFrame::Body;
  if (const auto* text = std::get_if<std::string>(&response.body)) {
    frame.body = Body::text;
    frame.length = text->size();
  } else if (const auto* file = std::get_if<FileBody>(&response.body)) {
    frame.body = Body::file;
    frame.length = file->length;
  } else if (const auto length = declared_length(response)) {
    frame.body = Body::stream_length;
    frame.length = *length;
  } else {
    frame.body = to_http10 ? Body::stream_until_close : Body::stream_chunked;
    frame.close = frame.close || to_http10;
  }
}

std::uint64_t random_word() {
  static thread_local std::uint64_t state = [] {
    std::uint64_t seed = 0;
    if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed))
      seed = static_cast<std::uint64_t>(::clock()) ^ reinterpret_cast<std::uintptr_t>(&seed);
    return seed;
  }();
  // splitmix64: an id has to be unlikely to repeat, not to be secret.
  state += 0x9e3779b97f4a7c15;
  std::uint64_t out = state;
  out = (out ^ (out >> 30)) * 0xbf58476d1ce4e5b9;
  out = (out ^ (out >> 27)) * 0x94d049bb133111eb;
  return out ^ (out >> 31);
}

}  // namespace

std::string_view date_now() {
  static thread_local std::time_t written_for = 0;
  static thread_local std::array<char, 40> text{};
  const std::time_t now = std::time(nullptr);
  if (now != written_for) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::tm at{};
    gmtime_r(&now, &at);
    *fmt::format_to(text.data(), "{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[at.tm_wday], at.tm_mday,
                    kMonths[at.tm_mon], at.tm_year + 1900, at.tm_hour, at.tm_min, at.tm_sec) = '\0';
    written_for = now;
  }
  return text.data();
}

std::string request_id(std::string_view sent) {
  if (!sent.empty() && sent.size() <= 64 && is_token(sent)) return std::string(sent);
  return fmt::format("{:016x}", random_word());
}

AnswerFrame frame_answer(const Response& response, const Request& request, bool to_http10, bool close) {
  using Body = AnswerFrame::Body;
  AnswerFrame frame;
  frame.close = close || same_ignoring_case(response.headers.get("Connection"), "close");
  choose_body(frame, response, to_http10);

  const bool to_head = request.method == Method::head;
  const bool bodiless = response.status < 200 || response.status == 204 || response.status == 304;
  std::string& head = frame.head;
  head.reserve(256);
  fmt::format_to(std::back_inserter(head), "HTTP/1.1 {} {}\r\nServer: lathe\r\nDate: {}\r\n", response.status,
                 reason(response.status), date_now());
  for (const auto& [name, value] : response.headers.list()) {
    if (framing_header(name) || !is_token(name)) continue;
    head += name;
    head += ": ";
    append_value(head, value);
    head += "\r\n";
  }
  if (!request.id.empty()) fmt::format_to(std::back_inserter(head), "X-Request-Id: {}\r\n", request.id);
  if (!bodiless) {
    const bool empty_text = frame.body == Body::text && frame.length == 0;
    const auto length = to_head && empty_text ? declared_length(response).value_or(0) : frame.length;
    if (frame.body == Body::stream_chunked)
      head += "Transfer-Encoding: chunked\r\n";
    else if (frame.body != Body::stream_until_close)
      fmt::format_to(std::back_inserter(head), "Content-Length: {}\r\n", length);
  }
  head += frame.close ? "Connection: close\r\n\r\n" : "\r\n";
  if (bodiless || to_head) frame.body = Body::none;
  return frame;
}

Response plain_answer(int status, const Text& text, Language language) {
  return Response::text(status, in(language, text) + "\n");
}

Result<void> ChannelWriter::write(std::string_view bytes) {
  if (broken_) return Error{Code::cancelled, {"客户端已断开", "the client has left"}};
  if (bytes.empty()) return {};
  Result<void> sent;
  if (frame_.body == AnswerFrame::Body::stream_chunked) {
    std::array<char, 20> size{};
    char* end = fmt::format_to(size.data(), "{:x}\r\n", bytes.size());
    const std::array<std::string_view, 3> pieces{
        std::string_view(size.data(), static_cast<std::size_t>(end - size.data())), bytes, "\r\n"};
    sent = channel_.write(pieces, false);
  } else if (frame_.body == AnswerFrame::Body::stream_length && written_ + bytes.size() > frame_.length) {
    sent = Error{Code::internal, {"写出的内容超过声明的长度", "more was written than Content-Length said"}};
  } else {
    const std::array<std::string_view, 1> pieces{bytes};
    sent = channel_.write(pieces, false);
  }
  if (sent)
    written_ += bytes.size();
  else
    broken_ = true;
  return sent;
}

bool ChannelWriter::gone() {
  return broken_ || draining_.load(std::memory_order_relaxed) || peer_closed(socket_);
}

bool ChannelWriter::finish() {
  if (broken_) return false;
  if (frame_.body == AnswerFrame::Body::stream_length) return written_ == frame_.length;
  if (frame_.body != AnswerFrame::Body::stream_chunked) return true;
  const std::array<std::string_view, 1> last{"0\r\n\r\n"};
  return channel_.write(last, false).ok();
}

}  // namespace lathe::http
