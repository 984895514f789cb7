#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <utility>

#include "http/channel.h"

namespace lathe::http {

// One concrete executor everywhere: Asio's any_executor is copied at every operation and shows in profiles.
using Executor = boost::asio::io_context::executor_type;
template <class T = void>
using Task = boost::asio::awaitable<T, Executor>;
using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Executor>;
/// Awaits an operation; errors come as the first element of a tuple.
inline constexpr auto kAwait = boost::asio::as_tuple(boost::asio::use_awaitable_t<Executor>{});

/// A TCP socket whose asynchronous operations are Asio's and whose blocking ones wait no longer than the
/// timeouts, whatever mode the descriptor is in. What TLS runs over.
class TimedSocket {
 public:
  using executor_type = Executor;
  using lowest_layer_type = Socket;

  TimedSocket(Socket socket, SocketChannel::Timeouts timeouts)
      : socket_(std::move(socket)), channel_(socket_.native_handle(), timeouts) {}

  executor_type get_executor() { return socket_.get_executor(); }
  lowest_layer_type& lowest_layer() { return socket_; }
  const lowest_layer_type& lowest_layer() const { return socket_; }
  SocketChannel& channel() { return channel_; }

  template <class Buffers, class Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    return socket_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <class Buffers, class Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    return socket_.async_write_some(buffers, std::forward<Handler>(handler));
  }

  template <class Buffers>
  std::size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
    const boost::asio::mutable_buffer into = *boost::asio::buffer_sequence_begin(buffers);
    return read_some(static_cast<char*>(into.data()), into.size(), error);
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, boost::system::error_code& error) {
    std::size_t sent = 0;
    error = {};
    for (auto one = boost::asio::buffer_sequence_begin(buffers);
         !error && one != boost::asio::buffer_sequence_end(buffers); ++one) {
      const boost::asio::const_buffer piece = *one;
      sent += write_some(static_cast<const char*>(piece.data()), piece.size(), error);
    }
    return sent;
  }

 private:
  std::size_t read_some(char* into, std::size_t size, boost::system::error_code& error);
  std::size_t write_some(const char* from, std::size_t size, boost::system::error_code& error);

  Socket socket_;
  SocketChannel channel_;
};

using TlsStream = boost::asio::ssl::stream<TimedSocket&>;

/// The blocking view of a TLS stream.
class TlsChannel final : public Channel {
 public:
  explicit TlsChannel(TlsStream& stream) : stream_(stream) {}
  Result<std::size_t> read(std::span<char> into) override;
  Result<void> write(std::span<const std::string_view> pieces, bool more) override;
  Result<void> write_file(int fd, std::uint64_t offset, std::uint64_t length) override;

 private:
  TlsStream& stream_;
};

}  // namespace lathe::http
