#include "http/parser.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace lathe::http {

namespace {

constexpr std::size_t kUsualFields = 16;

enum : unsigned char { kToken = 1, kValue = 2, kTarget = 4, kHost = 8 };

constexpr std::array<unsigned char, 256> make_classes() {
  std::array<unsigned char, 256> out{};
  for (int c = 0; c < 256; ++c) {
    if (c == '\t' || (c >= 0x20 && c != 0x7f)) out[c] |= kValue;
    if (c > 0x20 && c != 0x7f) out[c] |= kTarget;
    const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (alnum) out[c] |= kToken | kHost;
  }
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) out[static_cast<unsigned char>(c)] |= kToken;
  for (const char c : std::string_view("-._~!$&'()*+,;=%:[]")) out[static_cast<unsigned char>(c)] |= kHost;
  return out;
}
constexpr auto kClasses = make_classes();

bool all(std::string_view text, unsigned char of) {
  return std::all_of(text.begin(), text.end(),
                     [of](char c) { return (kClasses[static_cast<unsigned char>(c)] & of) != 0; });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Digits only, and small enough that sums of two lengths do not overflow.
std::optional<std::uint64_t> read_length(std::string_view text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  std::uint64_t out = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    out = out * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return out;
}

/// After "http://" or "https://"; npos if the target has no such beginning.
std::size_t authority_start(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (same_ignoring_case(target.substr(0, scheme.size()), scheme)) return scheme.size();
  return std::string_view::npos;
}

}  // namespace

bool is_token(std::string_view text) {
  return !text.empty() && all(text, kToken);
}
bool is_field_value(std::string_view text) {
  return all(text, kValue);
}

void HeadParser::reset() {
  minor_version_ = 1;
  chunked_ = started_ = finished_ = close_ = keep_alive_ = skipped_line_ = false;
  length_.reset();
  fields_.clear();
  line_start_ = scanned_ = 0;
  state_ = State::more;
}

bool HeadParser::refuse(int status, const char* zh, const char* en) {
  refusal_ = {status, zh, en};
  state_ = State::refused;
  return false;
}

void HeadParser::refuse_size() {
  if (started_)
    refuse(431, "请求头过大", "the request's head is too large");
  else
    refuse(414, "请求行过长", "the request line is too long");
}

HeadParser::Field HeadParser::field(std::size_t index) const {
  const Slot& slot = fields_[index];
  return {view(slot.name, slot.name_size), view(slot.value, slot.value_size)};
}

HeadParser::State HeadParser::parse(std::string_view received) {
  base_ = received.data();
  while (state_ == State::more) {
    const auto fresh = received.substr(scanned_);
    const std::size_t end = fresh.find('\n');
    // Checked before the line is whole as well, so that a stranger's protocol is refused and not waited for.
    auto visible = fresh.substr(0, std::min(end, fresh.size()));
    const bool ends_in_cr = !visible.empty() && visible.back() == '\r';
    if (ends_in_cr) visible.remove_suffix(1);
    if (!all(visible, kValue)) {
      // A CR at the end of the previous piece is in order only directly before this LF.
      refuse(400, "请求头含有控制字符", "a control character in the head");
      break;
    }
    if (end == std::string_view::npos) {
      scanned_ = received.size() - (ends_in_cr ? 1 : 0);
      if (received.size() >= limits_.max_bytes) refuse_size();
      break;
    }
    const std::size_t stop = scanned_ + end;
    scanned_ = stop + 1;
    if (scanned_ > limits_.max_bytes) {
      refuse_size();
      break;
    }
    if (stop == line_start_ || received[stop - 1] != '\r') {
      refuse(400, "有一行没有以回车换行结尾", "a line that ends without a carriage return");
      break;
    }
    const auto line = received.substr(line_start_, stop - 1 - line_start_);
    const bool took = take_line(line);
    line_start_ = scanned_;
    if (!took) break;
    if (finished_) state_ = State::done;
  }
  return state_;
}

bool HeadParser::take_line(std::string_view line) {
  if (!started_) {
    // RFC 9112 §2.2: one empty line before a request is forgiven (old clients end their bodies with one).
    if (line.empty()) {
      if (skipped_line_) return refuse(400, "请求之前有多个空行", "empty lines before the request");
      skipped_line_ = true;
      return true;
    }
    started_ = true;
    return start_line(line);
  }
  if (!line.empty()) return take_field(line);
  finished_ = true;
  if (chunked_ && length_)
    return refuse(400, "同时有 Content-Length 和 Transfer-Encoding",
                  "both Content-Length and Transfer-Encoding");
  if (chunked_ && minor_version_ == 0)
    return refuse(400, "HTTP/1.0 请求带有 Transfer-Encoding", "Transfer-Encoding in HTTP/1.0");
  return complete();
}

bool HeadParser::take_field(std::string_view line) {
  if (fields_.size() >= limits_.max_fields) return refuse(431, "请求头字段过多", "too many header fields");
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos)
    return refuse(400, "有一行请求头没有冒号", "a header line without a colon");
  const auto name = line.substr(0, colon);
  if (!is_token(name)) return refuse(400, "请求头字段名不合法", "a malformed header name");
  const auto value = trimmed(line.substr(colon + 1));
  if (fields_.capacity() == 0) fields_.reserve(kUsualFields);
  fields_.push_back({offset_of(name), static_cast<std::uint32_t>(name.size()),
                     value.empty() ? 0 : offset_of(value), static_cast<std::uint32_t>(value.size())});
  return take_framing_field(name, value) && known_field(name, value);
}

bool HeadParser::take_framing_field(std::string_view name, std::string_view value) {
  if (name.size() == 14 && same_ignoring_case(name, "content-length")) {
    if (length_) return refuse(400, "Content-Length 多于一个", "more than one Content-Length");
    length_ = read_length(value);
    if (!length_) return refuse(400, "Content-Length 不合法", "a malformed Content-Length");
  } else if (name.size() == 17 && same_ignoring_case(name, "transfer-encoding")) {
    if (chunked_) return refuse(400, "Transfer-Encoding 多于一个", "more than one Transfer-Encoding");
    if (!same_ignoring_case(value, "chunked"))
      return refuse(501, "Transfer-Encoding 只支持 chunked", "a Transfer-Encoding other than chunked");
    chunked_ = true;
  } else if (name.size() == 10 && same_ignoring_case(name, "connection")) {
    while (!value.empty()) {
      const std::size_t comma = std::min(value.find(','), value.size());
      const auto option = trimmed(value.substr(0, comma));
      value.remove_prefix(std::min(comma + 1, value.size()));
      if (same_ignoring_case(option, "close")) close_ = true;
      if (same_ignoring_case(option, "keep-alive")) keep_alive_ = true;
    }
  }
  return true;
}

void RequestHeadParser::reset() {
  HeadParser::reset();
  method_ = method_size_ = target_ = target_size_ = host_ = host_size_ = 0;
  has_host_ = expect_ = false;
}

bool RequestHeadParser::start_line(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) return refuse(400, "请求行不合法", "a malformed request line");
  const auto method = line.substr(0, first);
  const auto target = line.substr(first + 1, second - first - 1);
  const auto version = line.substr(second + 1);
  if (!is_token(method) || method.size() > 32) return refuse(400, "请求方法不合法", "a malformed method");
  if (target.empty() || !all(target, kTarget))
    return refuse(400, "请求目标不合法", "a malformed request target");
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' || version[5] < '0' ||
      version[5] > '9' || version[7] < '0' || version[7] > '9')
    return refuse(400, "协议版本不合法", "a malformed protocol version");
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return refuse(505, "只支持 HTTP/1.1 和 HTTP/1.0", "only HTTP/1.1 and HTTP/1.0 are spoken");
  minor_version_ = version[7] - '0';
  const bool asterisk = target == "*" && method == "OPTIONS";
  if (target.front() != '/' && !asterisk && authority_start(target) == std::string_view::npos)
    return refuse(400, "请求目标不合法", "a malformed request target");
  method_ = offset_of(method);
  method_size_ = static_cast<std::uint32_t>(method.size());
  target_ = offset_of(target);
  target_size_ = static_cast<std::uint32_t>(target.size());
  return true;
}

bool RequestHeadParser::known_field(std::string_view name, std::string_view value) {
  if (name.size() == 4 && same_ignoring_case(name, "host")) {
    if (has_host_) return refuse(400, "Host 多于一个", "more than one Host");
    if (!all(value, kHost)) return refuse(400, "Host 不合法", "a malformed Host");
    has_host_ = true;
    host_ = value.empty() ? 0 : offset_of(value);
    host_size_ = static_cast<std::uint32_t>(value.size());
  } else if (name.size() == 6 && same_ignoring_case(name, "expect") && minor_version_ == 1) {
    if (!same_ignoring_case(value, "100-continue"))
      return refuse(417, "Expect 只支持 100-continue", "only 100-continue can be expected");
    expect_ = true;
  }
  return true;
}

bool RequestHeadParser::complete() {
  if (!has_host_ && minor_version_ == 1) return refuse(400, "缺少 Host", "no Host");
  if (const std::size_t start = authority_start(target()); start != std::string_view::npos) {
    const auto rest = target().substr(start);
    const auto authority = rest.substr(0, std::min(rest.find_first_of("/?"), rest.size()));
    // The authority counts and Host should be ignored; one that differs is somebody's attempt to be two.
    if (authority.empty() || !all(authority, kHost) ||
        (has_host_ && !same_ignoring_case(authority, view(host_, host_size_))))
      return refuse(400, "请求目标的主机与 Host 不同", "the target's authority and Host differ");
    if (authority.size() == rest.size() || rest[authority.size()] != '/')
      return refuse(400, "绝对形式的请求目标缺少路径", "an absolute target without a path");
  }
  return true;
}

std::string_view RequestHeadParser::origin_target() const {
  const std::size_t start = authority_start(target());
  if (start == std::string_view::npos) return target();
  return target().substr(std::min(target().find('/', start), target().size()));
}

Framing RequestHeadParser::framing() const {
  if (chunked_) return {Framing::Kind::chunked, 0};
  if (length_ && *length_ > 0) return {Framing::Kind::length, *length_};
  return {};
}

void ResponseHeadParser::reset() {
  HeadParser::reset();
  status_ = 0;
  reason_ = reason_size_ = 0;
}

bool ResponseHeadParser::start_line(std::string_view line) {
  if (line.size() < 12 || !(line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ")))
    return refuse(502, "状态行不合法", "a malformed status line");
  minor_version_ = line[7] - '0';
  for (const char c : line.substr(9, 3)) {
    if (c < '0' || c > '9') return refuse(502, "状态码不合法", "a malformed status");
    status_ = status_ * 10 + (c - '0');
  }
  if (status_ < 100 || status_ > 599) return refuse(502, "状态码不合法", "a malformed status");
  if (line.size() == 12) return true;
  if (line[12] != ' ') return refuse(502, "状态行不合法", "a malformed status line");
  reason_ = offset_of(line) + 13;
  reason_size_ = static_cast<std::uint32_t>(line.size() - 13);
  return true;
}

bool ResponseHeadParser::known_field(std::string_view, std::string_view) {
  return true;
}

Framing ResponseHeadParser::framing(bool to_head) const {
  if (to_head || status_ < 200 || status_ == 204 || status_ == 304) return {};
  if (chunked_) return {Framing::Kind::chunked, 0};
  if (!length_) return {Framing::Kind::until_close, 0};
  return *length_ == 0 ? Framing{} : Framing{Framing::Kind::length, *length_};
}

}  // namespace lathe::http
