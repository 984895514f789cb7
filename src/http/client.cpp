#include "http/client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <utility>

#include "http/answer.h"
#include "http/body.h"
#include "http/channel.h"
#include "http/connect.h"
#include "http/parser.h"

namespace lathe::http {

namespace {

constexpr HeadLimits kHeadLimits{64 * 1024, 200};
constexpr std::size_t kPiece = 256 * 1024;

Error not_http(const char* why) {
  return {
      Code::invalid_argument,
      {std::string("服务器的应答无法识别：") + why, std::string("the server's answer is not HTTP: ") + why}};
}

bool is_idempotent(Method method) {
  return method != Method::post && method != Method::patch && method != Method::other;
}

/// Bytes waiting on an idle connection are an end or a mistake: either way it is of no use.
bool has_gone_stale(int fd) {
  pollfd asked{fd, POLLIN | POLLRDHUP, 0};
  return ::poll(&asked, 1, 0) != 0;
}

}  // namespace

struct Client::State {
  State(Address to, Options with) : address(std::move(to)), options(with) {}
  ~State() { close(); }

  Address address;
  Options options;
  int fd = -1;
  ReadBuffer buffer;
  ResponseHeadParser parser{kHeadLimits};

  void close() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
    buffer.consume(buffer.size());
  }

  Result<void> open() {
    if (fd >= 0 && has_gone_stale(fd)) close();
    if (fd < 0) fd = TRY(connect_to(address, options.connect_timeout));
    return {};
  }

  AnswerFrame frame(const ClientRequest& request) const {
    using Body = AnswerFrame::Body;
    AnswerFrame out;
    const std::string host =
        address.host.find(':') == std::string::npos ? address.host : "[" + address.host + "]";
    out.head =
        fmt::format("{} {} HTTP/1.1\r\nHost: {}{}\r\n", name(request.method), request.target,
                    address.unix_path.empty() ? host : "localhost",
                    address.unix_path.empty() && address.port != 80 ? fmt::format(":{}", address.port) : "");
    for (const auto& [key, value] : request.headers.list()) {
      if (same_ignoring_case(key, "Host") || same_ignoring_case(key, "Transfer-Encoding") ||
          same_ignoring_case(key, "Connection") || same_ignoring_case(key, "Content-Length"))
        continue;
      if (is_token(key) && is_field_value(value)) out.head += fmt::format("{}: {}\r\n", key, value);
    }
    if (const auto* text = std::get_if<std::string>(&request.body)) {
      out.body = text->empty() ? Body::none : Body::text;
      out.length = text->size();
    } else if (const auto* file = std::get_if<FileBody>(&request.body)) {
      out.body = Body::file;
      out.length = file->length;
    } else if (const auto length = request.headers.get("Content-Length"); !length.empty()) {
      out.body = Body::stream_length;
      out.length = std::strtoull(std::string(length).c_str(), nullptr, 10);
    } else {
      out.body = Body::stream_chunked;
    }
    const bool may_have_body =
        request.method == Method::post || request.method == Method::put || request.method == Method::patch;
    if (out.body == Body::stream_chunked)
      out.head += "Transfer-Encoding: chunked\r\n";
    else if (out.body != Body::none || may_have_body)
      out.head += fmt::format("Content-Length: {}\r\n", out.length);
    out.head += "\r\n";
    return out;
  }

  Result<void> write(const ClientRequest& request) {
    SocketChannel channel(fd, {options.timeout, options.timeout});
    const AnswerFrame framed = frame(request);
    if (const auto* text = std::get_if<std::string>(&request.body)) {
      const std::array<std::string_view, 2> pieces{framed.head, *text};
      return channel.write(pieces, false);
    }
    const std::array<std::string_view, 1> head{framed.head};
    TRY(channel.write(head, false));
    if (const auto* file = std::get_if<FileBody>(&request.body))
      return file->length > 0 ? channel.write_file(*file->fd, file->offset, file->length) : Result<void>();
    static const std::atomic<bool> kNever{false};
    ChannelWriter writer(channel, fd, framed, kNever);
    std::get<StreamBody>(request.body)(writer);
    if (writer.finish()) return {};
    return Error{Code::cancelled, {"请求体没有发送完", "the request's body was not sent whole"}};
  }

  Result<ClientResponse> read_head() {
    SocketChannel channel(fd, {options.timeout, options.timeout});
    for (;;) {
      parser.reset();
      for (;;) {
        const auto state = parser.parse(buffer.view());
        if (state == HeadParser::State::refused) return not_http(parser.refusal().en);
        if (state == HeadParser::State::done) break;
        const auto got = TRY(channel.read(buffer.prepare(kHeadLimits.max_bytes)));
        if (got == 0)
          return Error{Code::cancelled,
                       {"服务器没有应答就断开了连接", "the server closed the connection without an answer"}};
        buffer.commit(got);
      }
      if (parser.status() >= 200) break;
      if (parser.status() == 101) return not_http("an upgrade nobody asked for");
      buffer.consume(parser.bytes());
    }
    ClientResponse out;
    out.status = parser.status();
    for (std::size_t i = 0; i < parser.field_count(); ++i)
      out.headers.add(std::string(parser.field(i).name), std::string(parser.field(i).value));
    return out;
  }

  Result<ClientResponse> exchange(const ClientRequest& request, const Sink& sink) {
    const auto written = write(request);
    // A server that refuses a large body answers and closes before it is sent whole; one that still waits for
    // the rest must learn that it will not come.
    if (!written) ::shutdown(fd, SHUT_WR);
    auto response = read_head();
    if (!response) return written ? response.error() : written.error();
    const bool reusable = parser.keep_alive() && written.ok();
    const Framing framing = parser.framing(request.method == Method::head);
    BodyState state(framing, UINT64_MAX);
    buffer.consume(parser.bytes());
    SocketChannel channel(fd, {options.timeout, options.timeout});
    ChannelBody body(channel, buffer, state, {});
    const auto piece = std::make_unique_for_overwrite<char[]>(state.done() ? 1 : kPiece);
    while (!state.done()) {
      const auto got = TRY(body.read({piece.get(), kPiece}));
      if (got == 0) break;
      TRY(sink(*response, {piece.get(), got}));
    }
    if (!reusable || framing.kind == Framing::Kind::until_close) close();
    return response;
  }
};

Client::Client(Address address) : Client(std::move(address), Options{}) {}
Client::Client(Address address, Options options)
    : state_(std::make_unique<State>(std::move(address), options)) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Result<ClientResponse> Client::send(const ClientRequest& request, const Sink& sink) {
  for (bool first = true;; first = false) {
    const bool reused = state_->fd >= 0;
    TRY(state_->open());
    bool answered = false;
    const Sink noting = [&](const ClientResponse& head, std::string_view piece) {
      answered = true;
      return sink(head, piece);
    };
    auto response = state_->exchange(request, noting);
    if (response) return response;
    state_->close();
    const bool repeatable =
        is_idempotent(request.method) && !std::holds_alternative<StreamBody>(request.body);
    if (!first || !reused || answered || !repeatable || response.error().code != Code::cancelled)
      return response;
  }
}

Result<ClientResponse> Client::send(const ClientRequest& request) {
  std::string body;
  auto response = send(request, [&](const ClientResponse&, std::string_view piece) -> Result<void> {
    if (body.size() + piece.size() > state_->options.max_body)
      return Error{Code::too_large, {"应答过大", "the answer is too large"}};
    body += piece;
    return {};
  });
  if (response) response->body = std::move(body);
  return response;
}

}  // namespace lathe::http
