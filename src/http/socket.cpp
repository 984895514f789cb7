#include "http/socket.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace lathe::http {

void cut_front(std::size_t bytes, std::initializer_list<std::string_view*> pieces) {
  for (auto* piece : pieces) {
    const auto of_piece = std::min(bytes, piece->size());
    piece->remove_prefix(of_piece);
    bytes -= of_piece;
  }
}

Socket::Socket(Loop& loop, Fd fd, bool connected) : loop_(loop), fd_(std::move(fd)), writable_(connected) {
  registration_ = loop_.watch(*this, fd_.get(), !connected);
  if (!registration_) close();
}

void Socket::close() {
  if (!is_open()) return;
  // Closing alone does not end it while a process being started still has a copy of the descriptor.
  lend();
  loop_.forget(std::exchange(registration_, nullptr));
  fd_ = Fd();
  hung_up_ = true;
  cancel();
}

void Socket::cancel() {
  cancelled_ = true;
  for (auto* waiting : {&reader_, &writer_})
    if (*waiting) loop_.resume_later(std::exchange(*waiting, nullptr));
}

void Socket::resume(std::coroutine_handle<>& waiting) {
  if (waiting) std::exchange(waiting, nullptr).resume();
}

void Socket::happened(std::uint32_t events) {
  const bool over = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if ((events & EPOLLIN) != 0 || over) readable_ = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) writable_ = true;
  // Whoever is resumed may destroy this socket: its registration tells.
  const auto* const registration = registration_;
  const auto gone = [&] { return registration->socket == nullptr; };
  if (over && !std::exchange(hung_up_, true) && hang_up_) {
    std::exchange(hang_up_, nullptr)();
    if (gone()) return;
  }
  if (readable_) resume(reader_);
  if (gone()) return;
  if (writable_) resume(writer_);
}

std::ptrdiff_t Socket::try_read(std::span<char> into) {
  if (!readable_) return kWouldBlock;
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), into.data(), into.size(), 0);
    if (got > 0) {
      // Less than asked for: that was all there is, and the kernel will tell of more.
      if (static_cast<std::size_t>(got) < into.size() && !hung_up_) readable_ = false;
      return got;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      readable_ = false;
      return kWouldBlock;
    }
    return 0;
  }
}

std::ptrdiff_t Socket::try_write(std::string_view first, std::string_view second) {
  const std::array<iovec, 2> pieces{iovec{const_cast<char*>(first.data()), first.size()},
                                    iovec{const_cast<char*>(second.data()), second.size()}};
  return try_write(std::span(pieces.data(), second.empty() ? 1 : 2));
}

std::ptrdiff_t Socket::try_write(std::span<const iovec> pieces) {
  if (!writable_) return kWouldBlock;
  for (;;) {
    ssize_t sent = 0;
    if (pieces.size() == 1) {
      sent = ::send(fd_.get(), pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL);
    } else {
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(pieces.data());
      message.msg_iovlen = pieces.size();
      sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    }
    if (sent >= 0) return sent;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return 0;
    writable_ = false;
    return kWouldBlock;
  }
}

bool Socket::write_now(std::string_view& first, std::string_view& second) {
  const auto sent = try_write(first, second);
  if (sent <= 0) return false;
  cut_front(static_cast<std::size_t>(sent), {&first, &second});
  return first.empty() && second.empty();
}

Task<bool> Socket::write(std::string_view first, std::string_view second) {
  while (!first.empty() || !second.empty()) {
    const bool worth = co_await writable();
    if (!worth) co_return false;
    const auto sent = try_write(first, second);
    if (sent == kWouldBlock) continue;
    if (sent == 0) co_return false;
    cut_front(static_cast<std::size_t>(sent), {&first, &second});
  }
  co_return true;
}

Fd Socket::begin_connect(const sockaddr_storage& address, socklen_t size) {
  Fd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS)
    return Fd();
  return fd;
}

Task<bool> Socket::connected() {
  const bool worth = co_await writable();
  if (!worth) co_return false;
  int error = 0;
  socklen_t length = sizeof error;
  co_return ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
}

void Socket::look_again() {
  readable_ = true;
  resume(reader_);
}

void Socket::on_hang_up(std::function<void()> then) {
  if (hung_up_)
    then();
  else
    hang_up_ = std::move(then);
}

void Socket::lend() {
  epoll_event ignored{};
  ::epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_DEL, fd_.get(), &ignored);
}

bool Socket::take_back() {
  // What came meanwhile is told again when it is registered anew.
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.ptr = registration_}};
  readable_ = false;
  return is_open() && ::epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_ADD, fd_.get(), &event) == 0;
}

}  // namespace lathe::http
