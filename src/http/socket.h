#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <coroutine>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>

#include "base/fd.h"
#include "http/loop.h"

namespace lathe::http {

/// Takes so many bytes, which have been sent, off the pieces in their order.
void cut_front(std::size_t bytes, std::initializer_list<std::string_view*> pieces);

/// A TCP socket on a loop: operations that do not wait, and waits for them. At most one coroutine waits to
/// read and one to write. No system call is made that the kernel has said would not succeed.
class Socket {
 public:
  /// `connected`: may be written to at once. One that is still to be connected asks others for answers: what
  /// comes there is looked at before what comes from clients.
  Socket(Loop& loop, Fd fd, bool connected);
  ~Socket() { close(); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  Loop& loop() const { return loop_; }
  int fd() const { return fd_.get(); }
  bool is_open() const { return fd_.get() >= 0; }
  /// The other side has closed its half, or the connection is broken.
  bool hung_up() const { return hung_up_; }
  /// There is something to read as far as is known: bytes or the end.
  bool maybe_readable() const { return readable_; }

  class Wait;
  /// Awaited: true when it is worth trying, false once cancelled or closed.
  Wait readable();
  Wait writable();

  static constexpr std::ptrdiff_t kWouldBlock = -1;
  /// Bytes read, 0 for the end (or a broken connection), kWouldBlock.
  std::ptrdiff_t try_read(std::span<char> into);
  /// Bytes written, 0 for a broken connection, kWouldBlock.
  std::ptrdiff_t try_write(std::string_view first, std::string_view second = {});
  std::ptrdiff_t try_write(std::span<const iovec> pieces);
  /// True if all of both was written at once; else what is left of them is in their place.
  bool write_now(std::string_view& first, std::string_view& second);

  /// All bytes of both; false once broken or cancelled.
  Task<bool> write(std::string_view first, std::string_view second = {});
  /// Begins to connect; nothing if that fails at once. A socket made of it is connected once `connected` says
  /// so.
  static Fd begin_connect(const sockaddr_storage& address, socklen_t size);
  Task<bool> connected();

  /// For those who use the descriptor themselves: a wait waits for news.
  void found_empty() { readable_ = hung_up_; }
  void found_full() { writable_ = false; }
  /// Has the reader try again.
  void look_again();

  /// Called when the other side hangs up; at once where it has.
  void on_hang_up(std::function<void()> then);
  void forget_hang_up() { hang_up_ = nullptr; }

  /// Ends the waits, now and (until `renew`) to come. They are resumed soon, not from here.
  void cancel();
  void renew() { cancelled_ = false; }
  void close();

  /// Takes the descriptor out of the loop while a worker uses it, and puts it back.
  void lend();
  bool take_back();

 private:
  friend class Loop;
  void happened(std::uint32_t events);
  static void resume(std::coroutine_handle<>& waiting);

  Loop& loop_;
  Fd fd_;
  Loop::Registration* registration_ = nullptr;
  bool readable_ = false, writable_ = false, hung_up_ = false, cancelled_ = false;
  std::coroutine_handle<> reader_, writer_;
  std::function<void()> hang_up_;
};

class Socket::Wait {
 public:
  Wait(Socket& socket, bool to_read) : socket_(socket), to_read_(to_read) {}
  bool await_ready() const {
    if (socket_.cancelled_ || !socket_.is_open()) return true;
    return (to_read_ ? socket_.readable_ : socket_.writable_) && socket_.loop_.may_go_on();
  }
  void await_suspend(std::coroutine_handle<> waiting) const {
    if (to_read_ ? socket_.readable_ : socket_.writable_)
      socket_.loop_.resume_later(waiting);
    else
      (to_read_ ? socket_.reader_ : socket_.writer_) = waiting;
  }
  bool await_resume() const { return !socket_.cancelled_ && socket_.is_open(); }

 private:
  Socket& socket_;
  const bool to_read_;
};

inline Socket::Wait Socket::readable() {
  return {*this, true};
}
inline Socket::Wait Socket::writable() {
  return {*this, false};
}

}  // namespace lathe::http
