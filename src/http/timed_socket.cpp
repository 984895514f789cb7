#include "http/timed_socket.h"

#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <memory>

namespace lathe::http {

namespace asio = boost::asio;

namespace {

boost::system::error_code as_code(const Error& error) {
  return error.code == Code::deadline_exceeded ? asio::error::timed_out : asio::error::connection_reset;
}

Error as_error(const boost::system::error_code& code) {
  if (code == asio::error::timed_out)
    return {Code::deadline_exceeded,
            {"对方长时间没有收发数据", "the other side neither sent nor took data in time"}};
  return {Code::cancelled, {"连接已中断", "the connection is broken"}};
}

}  // namespace

std::size_t TimedSocket::read_some(char* into, std::size_t size, boost::system::error_code& error) {
  const auto got = channel_.read({into, size});
  error = !got                    ? as_code(got.error())
          : *got == 0 && size > 0 ? asio::error::make_error_code(asio::error::eof)
                                  : boost::system::error_code{};
  return got ? *got : 0;
}

std::size_t TimedSocket::write_some(const char* from, std::size_t size, boost::system::error_code& error) {
  const std::array<std::string_view, 1> pieces{std::string_view(from, size)};
  const auto sent = channel_.write(pieces, false);
  error = sent ? boost::system::error_code{} : as_code(sent.error());
  return sent ? size : 0;
}

Result<std::size_t> TlsChannel::read(std::span<char> into) {
  boost::system::error_code error;
  const std::size_t got = stream_.read_some(asio::buffer(into.data(), into.size()), error);
  if (!error) return got;
  // A stream cut without close_notify counts as an end as well: HTTP's own framing tells whether it is one.
  if (error == asio::error::eof || error == asio::ssl::error::stream_truncated) return std::size_t{0};
  return as_error(error);
}

Result<void> TlsChannel::write(std::span<const std::string_view> pieces, bool) {
  // One record where several small pieces would make several.
  std::string joined;
  std::size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  const bool join = pieces.size() > 1 && total <= 16 * 1024;
  if (join)
    for (const auto piece : pieces) joined += piece;
  const std::array<std::string_view, 1> whole{joined};
  for (const auto piece : join ? std::span<const std::string_view>(whole) : pieces) {
    boost::system::error_code error;
    asio::write(stream_, asio::buffer(piece.data(), piece.size()), error);
    if (error) return as_error(error);
  }
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
    const std::array<std::string_view, 1> piece{
        std::string_view(buffer.get(), static_cast<std::size_t>(got))};
    TRY(write(piece, true));
    offset += static_cast<std::uint64_t>(got);
    length -= static_cast<std::uint64_t>(got);
  }
  return {};
}

}  // namespace lathe::http
