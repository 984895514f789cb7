// The definitions of http/testing.h; named so that only the test binary has them.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <stdexcept>

#include "http/body.h"
#include "http/parser.h"
#include "http/testing.h"

namespace lathe::http::testing {

namespace {

using namespace std::chrono_literals;

std::uint64_t number(const Request& request, std::string_view name, std::uint64_t otherwise) {
  const auto text = request.query_value(name);
  std::uint64_t out = otherwise;
  if (text) std::from_chars(text->data(), text->data() + text->size(), out);
  return out;
}

}  // namespace

std::shared_ptr<const int> temporary_file(std::string_view content) {
  auto fd = own_fd(::memfd_create("lathe-test", MFD_CLOEXEC));
  std::size_t written = 0;
  while (written < content.size()) {
    const ssize_t got =
        ::pwrite(*fd, content.data() + written, content.size() - written, static_cast<off_t>(written));
    if (got <= 0) throw std::runtime_error("cannot write a temporary file");
    written += static_cast<std::size_t>(got);
  }
  return fd;
}

std::string TestHandler::file_content() {
  std::string out;
  for (int i = 0; out.size() < 300'000; ++i) out += std::to_string(i) + "\n";
  return out;
}

TestHandler::TestHandler() : file_(temporary_file(file_content())) {}

Handler::Intake TestHandler::intake(const Request& head) {
  if (head.path == "/throw-intake") throw std::runtime_error("intake");
  Intake out;
  out.max_body = 64 * 1024;
  if (head.path == "/count" || head.path == "/half" || head.path == "/ignore") {
    out.stream = true;
    out.max_body = 1ull << 40;
  }
  if (head.path == "/small-stream") out.stream = true;
  if (head.path == "/refuse") out.refuse = Response::text(401, "refused");
  return out;
}

Response TestHandler::handle(Request& request) {
  if (request.path == "/throw") throw std::runtime_error("handle");
  if (request.path == "/count" || request.path == "/half" || request.path == "/small-stream") {
    const auto buffer = std::make_unique_for_overwrite<char[]>(256 * 1024);
    std::uint64_t total = 0;
    for (;;) {
      const auto got = request.stream->read({buffer.get(), 256 * 1024});
      if (!got) return failure(request, got.error(), 0);
      if (*got == 0 || (request.path == "/half" && total > 0)) break;
      total += *got;
    }
    return Response::text(200, std::to_string(total));
  }
  if (request.path == "/stream" || request.path == "/sized") {
    Response out;
    if (request.path == "/sized")
      out.headers.add("Content-Length", std::to_string(number(request, "length", 14)));
    out.body = [](BodyWriter& writer) {
      for (const auto* word : {"one ", "two ", "three "})
        if (!writer.write(word)) return;
    };
    return out;
  }
  if (request.path == "/broken-stream") {
    Response out;
    out.body = [](BodyWriter& writer) {
      (void)writer.write("begun");
      throw std::runtime_error("stream");
    };
    return out;
  }
  if (request.path == "/follow") {
    Response out;
    out.body = [this](BodyWriter& writer) {
      (void)writer.write("following");
      ++followers_begun;
      while (!writer.gone()) ::poll(nullptr, 0, 5);
      ++followers_ended;
    };
    return out;
  }
  if (request.path == "/file") {
    Response out;
    out.body = FileBody{file_, number(request, "offset", 0), number(request, "length", 0)};
    return out;
  }
  if (request.path == "/big") return Response::text(200, std::string(number(request, "length", 0), 'b'));
  if (request.path == "/empty")
    return Response::text(static_cast<int>(number(request, "status", 204)), "dropped");
  if (request.path == "/inject") {
    auto out = Response::text(200, "");
    out.headers.add("X-Name", "a\r\nX-Evil: 1");
    return out;
  }
  if (request.path == "/about")
    return Response::text(
        200, request.peer + " " + request.id + (request.language == Language::zh ? " zh" : " en"));
  if (request.path == "/wait") {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait_for(lock, 20s, [&] { return released_; });
    --waiting_;
  }
  std::string said = request.method_text + " " + request.path + " ";
  for (const auto& [key, value] : request.query) said += key + "=" + value + " ";
  return Response::text(200, said + request.body);
}

Response TestHandler::failure(const Request& request, const Error& error, int status) {
  return Response::text(status != 0 ? status : http_status(error.code),
                        request.path + ": " + error.describe(request.language));
}

void TestHandler::release() {
  const std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

void TestHandler::await_waiting(int count) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, 20s, [&] { return waiting_ >= count; });
}

TestServer::TestServer(ServerOptions options, bool access_log) : handler_(std::make_unique<TestHandler>()) {
  options.port = 0;
  options.access_log = access_log;
  auto made = Server::listen(options, *handler_);
  if (!made) throw std::runtime_error(made.error().describe(Language::en));
  server_ = std::move(made).value();
  server_->start();
}

Peer::Peer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("cannot connect");
}

Peer::~Peer() {
  ::close(fd_);
}

bool Peer::send(std::string_view bytes) {
  SocketChannel channel(fd_, {10s, 10s});
  const std::array<std::string_view, 1> pieces{bytes};
  return channel.write(pieces, false).ok();
}

void Peer::shutdown_send() {
  ::shutdown(fd_, SHUT_WR);
}

bool Peer::fill() {
  SocketChannel channel(fd_, {10s, 10s});
  std::array<char, 65536> buffer;
  const auto got = channel.read(buffer);
  if (!got || *got == 0) return false;
  received_.append(buffer.data(), *got);
  return true;
}

Answer Peer::answer(bool to_head) {
  ResponseHeadParser parser({64 * 1024, 100});
  Answer out;
  for (;;) {
    const auto state = parser.parse(received_);
    if (state == HeadParser::State::refused) return out;
    if (state == HeadParser::State::done) break;
    if (!fill()) return out;
  }
  for (std::size_t i = 0; i < parser.field_count(); ++i)
    out.headers.add(std::string(parser.field(i).name), std::string(parser.field(i).value));
  BodyState body(parser.framing(to_head), UINT64_MAX);
  const int status = parser.status();
  received_.erase(0, parser.bytes());
  while (!body.done()) {
    if (received_.empty() && !fill()) {
      if (!body.ended()) return out;
      break;
    }
    const auto step = body.decode(received_);
    if (!step) return out;
    out.body.append(received_, 0, step->produced);
    received_.erase(0, step->consumed);
  }
  out.status = status;
  return out;
}

bool Peer::closed() {
  return received_.empty() && !fill();
}

}  // namespace lathe::http::testing
