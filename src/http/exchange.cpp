// The half of a connection that runs on a worker thread: the handler, and answers that are streamed.
#include <array>

#include "base/log.h"
#include "http/connection.h"

namespace lathe::http {

namespace {

constexpr std::size_t kDrainAtOnce = 256 * 1024;

Error internal_error() {
  return {Code::internal, {"服务器内部错误", "internal error"}};
}

}  // namespace

struct Connection::Park {
  Connection& connection;
  bool taken = false;
  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> waiting) {
    connection.parked_ = waiting;
    // From here on the worker may be done at any moment; what it posts comes after this function.
    taken = connection.site_.workers.submit(connection);
    return taken;
  }
  bool await_resume() const { return taken; }
};

Task<bool> Connection::serve_on_worker(bool stream) {
  streamed_ = stream;
  if (stream) {
    // The worker reads the descriptor itself; left registered, every arrival would wake this thread as well.
    socket_.lend();
  }
  const bool taken = co_await Park{*this};
  if (stream && !socket_.take_back()) broken_ = true;
  if (!taken) {
    response_ =
        failed({Code::unavailable, {"服务器繁忙，请稍后再试", "the server is busy, try again later"}});
    response_.headers.set("Retry-After", "1");
    unread_ = !body_.done();
    co_return co_await answer_here(unread_);
  }
  co_return co_await finish_answer();
}

void Connection::run_job() noexcept {
  try {
    const SocketChannel::Timeouts timeouts{limits().body_timeout, limits().write_timeout};
    SocketChannel plain(fd_, timeouts);
    std::optional<TlsChannel> secure;
    if (tls_) secure.emplace(*tls_, timeouts);
    Channel& channel = tls_ ? static_cast<Channel&>(*secure) : plain;
    ChannelBody body(channel, buffer_, body_, expects_ ? kContinue : std::string_view());
    if (!answer_ready_) handle_request(body);
    site_.stats.bytes_in.fetch_add(body.received(), std::memory_order_relaxed);
    frame_ = frame_answer(response_, request_, http10_, unread_ || !may_go_on());
    send_answer(channel);
  } catch (const std::exception& bug) {
    log::error("request {}: cut: {}", request_.id, bug.what());
    broken_ = true;
  }
  // From the post on, the connection belongs to its I/O thread again.
  loop().post([this] { std::exchange(parked_, nullptr).resume(); });
}

void Connection::handle_request(ChannelBody& body) {
  if (streamed_) request_.stream = &body;
  try {
    response_ = site_.handler.handle(request_);
  } catch (const std::exception& bug) {
    log::error("request {}: {} {}: {}", request_.id, request_.method_text, request_.path, bug.what());
    response_ = failed(internal_error());
  } catch (...) {
    log::error("request {}: {} {}: unknown exception", request_.id, request_.method_text, request_.path);
    response_ = failed(internal_error());
  }
  request_.stream = nullptr;
  if (!streamed_) return;
  // A handler that had seen enough usually leaves no more than the last bytes.
  char dropped[4096];
  std::size_t total = 0;
  while (!body_.done() && !body.error() && !body.awaits_permission() && total < kDrainAtOnce &&
         buffer_.size() > 0) {
    const auto got = body.read(dropped);
    if (!got) break;
    total += *got;
  }
  unread_ = !body_.done();
}

Response Connection::failed(const Error& error, int status) {
  try {
    return site_.handler.failure(request_, error, status);
  } catch (const std::exception& bug) {
    log::error("request {}: failure(): {}", request_.id, bug.what());
    return plain_answer(status != 0 ? status : http_status(error.code), error.message, request_.language);
  }
}

Response Connection::malformed(const Error& error, int status) {
  // It tells the form of the answer, and nothing else is done with it.
  request_.path = request_.raw_target.substr(0, request_.raw_target.find('?'));
  if (request_.path.empty()) request_.path = "-";
  Response out = failed(error, status);
  request_.path = "-";
  return out;
}

void Connection::send_answer(Channel& channel) {
  using Body = AnswerFrame::Body;
  if (frame_.body == Body::none || frame_.body == Body::text) {
    // Usually the kernel takes it all; what it does not take is left to the I/O thread, so that a slow
    // reader holds no worker.
    if (tls_) return;
    const auto* text = std::get_if<std::string>(&response_.body);
    sent_ = send_at_once(fd_, frame_.head, text && frame_.body == Body::text ? *text : std::string_view());
    site_.stats.bytes_out.fetch_add(sent_, std::memory_order_relaxed);
    return;
  }
  sent_all_ = true;
  const std::array<std::string_view, 1> head{frame_.head};
  if (const auto* file = std::get_if<FileBody>(&response_.body)) {
    const bool has_body = file->length > 0;
    auto sent = channel.write(head, has_body);
    if (sent && has_body) sent = channel.write_file(*file->fd, file->offset, file->length);
    if (!sent) broken_ = true;
    answer_bytes_ = sent ? file->length : 0;
    if (!sent && sent.error().code == Code::internal)
      log::error("request {}: {}", request_.id, sent.error().message.en);
  } else {
    ChannelWriter writer(channel, fd_, frame_, site_.draining);
    bool whole = channel.write(head, false).ok();
    if (whole) {
      try {
        std::get<StreamBody>(response_.body)(writer);
        whole = writer.finish();
      } catch (const std::exception& bug) {
        log::error("request {}: {} {}: {}", request_.id, request_.method_text, request_.path, bug.what());
        whole = false;
      }
    }
    if (!whole) broken_ = true;
    answer_bytes_ = writer.written();
  }
  site_.stats.bytes_out.fetch_add(frame_.head.size() + answer_bytes_, std::memory_order_relaxed);
  // Files close and captures end here, not on the I/O thread.
  response_.body = std::string();
}

}  // namespace lathe::http
