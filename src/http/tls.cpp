#include "http/tls.h"

#include <openssl/err.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <new>

namespace lathe::http {

namespace {

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size,
                    const unsigned char* offered, unsigned offered_size, void*) {
  // HTTP/2 only for clients that speak nothing else (gRPC's): the rest of the server answers HTTP/1.1.
  static constexpr unsigned char kOurs[] = "\x08http/1.1\x02h2";
  unsigned char* match = nullptr;
  if (SSL_select_next_proto(&match, chosen_size, kOurs, sizeof kOurs - 1, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *chosen = match;
  return SSL_TLSEXT_ERR_OK;
}

Error unusable(const std::string& file) {
  std::array<char, 256> reason{};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  ERR_clear_error();
  return {Code::failed_precondition,
          {"TLS 文件不可用：" + file + "：" + reason.data(),
           "cannot use the TLS file " + file + ": " + reason.data()}};
}

// OpenSSL's own way to a socket uses write(2), whose SIGPIPE would be the process's.

int fd_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int retry_or_fail(BIO* bio, bool to_read) {
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
    to_read ? BIO_set_retry_read(bio) : BIO_set_retry_write(bio);
  return -1;
}

int bio_write(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const auto sent = ::send(fd_of(bio), data, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent > 0 ? static_cast<int>(sent) : retry_or_fail(bio, false);
}

int bio_read(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const auto got = ::recv(fd_of(bio), data, static_cast<std::size_t>(size), MSG_DONTWAIT);
  return got >= 0 ? static_cast<int>(got) : retry_or_fail(bio, true);
}

long bio_control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* socket_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "lathe socket");
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  return method;
}

}  // namespace

Result<TlsContext> make_tls(const TlsOptions& options) {
  TlsContext context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(),
                      SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_select_cb(context.get(), choose_protocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(context.get(), options.certificate_file.c_str()) != 1)
    return unusable(options.certificate_file);
  if (SSL_CTX_use_PrivateKey_file(context.get(), options.key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context.get()) != 1)
    return unusable(options.key_file);
  return context;
}

TlsStream::TlsStream(Socket& socket, SSL_CTX& context) : socket_(socket), ssl_(SSL_new(&context)) {
  BIO* bio = BIO_new(socket_method());
  if (!ssl_ || !bio) throw std::bad_alloc();
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket.fd())));
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_accept_state(ssl_.get());
}

bool TlsStream::speaks_http2() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &name, &size);
  return std::string_view(reinterpret_cast<const char*>(name), size) == "h2";
}

TlsStream::Next TlsStream::next(int outcome) {
  const int error = SSL_get_error(ssl_.get(), outcome);
  ERR_clear_error();
  if (error == SSL_ERROR_WANT_READ) return Next::read;
  return error == SSL_ERROR_WANT_WRITE ? Next::write : Next::end;
}

Task<bool> TlsStream::wait(Next next) {
  if (next == Next::end) co_return false;
  // OpenSSL has found the socket empty (or full): a wait that trusts what was known before would spin.
  if (next == Next::read) {
    socket_.found_empty();
    co_return co_await socket_.readable();
  }
  socket_.found_full();
  co_return co_await socket_.writable();
}

Task<bool> TlsStream::handshake() {
  for (;;) {
    const int outcome = SSL_do_handshake(ssl_.get());
    if (outcome == 1) co_return true;
    const bool go_on = co_await wait(next(outcome));
    if (!go_on) co_return false;
  }
}

Task<std::size_t> TlsStream::read(std::span<char> into) {
  for (;;) {
    std::size_t got = 0;
    const int outcome = SSL_read_ex(ssl_.get(), into.data(), into.size(), &got);
    if (outcome == 1) co_return got;
    const bool go_on = co_await wait(next(outcome));
    if (!go_on) co_return 0;
  }
}

Task<std::size_t> TlsStream::write_some(std::string_view bytes) {
  for (;;) {
    std::size_t sent = 0;
    const int outcome = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &sent);
    if (outcome == 1) co_return sent;
    const bool go_on = co_await wait(next(outcome));
    if (!go_on) co_return 0;
  }
}

void TlsStream::say_goodbye() {
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

Result<bool> TlsChannel::wait(int outcome) {
  switch (stream_.next(outcome)) {
    case TlsStream::Next::read:
      TRY(wait_for(stream_.socket_.fd(), POLLIN, timeouts_.read));
      return true;
    case TlsStream::Next::write:
      TRY(wait_for(stream_.socket_.fd(), POLLOUT, timeouts_.write));
      return true;
    case TlsStream::Next::go_on:
    case TlsStream::Next::end:
      break;
  }
  return false;
}

Result<std::size_t> TlsChannel::read(std::span<char> into) {
  for (;;) {
    std::size_t got = 0;
    const int outcome = SSL_read_ex(stream_.ssl_.get(), into.data(), into.size(), &got);
    if (outcome == 1) return got;
    // A stream cut without close_notify counts as an end as well: HTTP's own framing tells whether it is one.
    if (!TRY(wait(outcome))) return std::size_t{0};
  }
}

Result<void> TlsChannel::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    std::size_t sent = 0;
    const int outcome = SSL_write_ex(stream_.ssl_.get(), bytes.data(), bytes.size(), &sent);
    if (outcome == 1) {
      bytes.remove_prefix(sent);
    } else if (!TRY(wait(outcome))) {
      return Error{Code::cancelled, {"连接已中断", "the connection is broken"}};
    }
  }
  return {};
}

Result<void> TlsChannel::write(std::span<const std::string_view> pieces, bool) {
  // One record where several small pieces would make several.
  std::string joined;
  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  if (pieces.size() > 1 && total <= 16 * 1024) {
    for (const auto piece : pieces) joined += piece;
    return write_all(joined);
  }
  for (const auto piece : pieces) TRY(write_all(piece));
  return {};
}

Result<void> TlsChannel::write_file(int fd, std::uint64_t offset, std::uint64_t length) {
  constexpr std::size_t kPiece = 64 * 1024;
  const auto buffer = std::make_unique_for_overwrite<char[]>(kPiece);
  while (length > 0) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, length));
    const ssize_t got = ::pread(fd, buffer.get(), want, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("pread", errno);
    if (got == 0)
      return Error{Code::internal, {"文件在发送时变短", "the file became shorter while it was sent"}};
    TRY(write_all({buffer.get(), static_cast<std::size_t>(got)}));
    offset += static_cast<std::uint64_t>(got);
    length -= static_cast<std::uint64_t>(got);
  }
  return {};
}

}  // namespace lathe::http
