#include "jobs/log_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "base/fd.h"
#include "jobs/log_tail.h"

namespace lathe::jobs {

namespace {

constexpr int kPollMs = 200;
constexpr std::chrono::seconds kAskInterval{1}, kKeepAlive{15};

/// Where the last `lines` lines of the file begin.
off_t tail_offset(int fd, std::int64_t lines) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return 0;
  std::array<char, 65536> buffer{};
  off_t end = info.st_size;
  std::int64_t seen = 0;
  bool last = true;  // the newline that ends the last line begins no other
  while (end > 0) {
    const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(buffer.size()));
    const ssize_t got = ::pread(fd, buffer.data(), static_cast<std::size_t>(end - begin), begin);
    if (got <= 0) return 0;
    for (ssize_t i = got - 1; i >= 0; --i) {
      if (buffer[static_cast<std::size_t>(i)] == '\n' && !last && ++seen >= lines) return begin + i + 1;
      last = false;
    }
    end = begin;
  }
  return 0;
}

/// Waits for the log's folder to change.
class Watcher {
 public:
  explicit Watcher(const std::string& path) : fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    const std::string folder = path.substr(0, path.rfind('/'));
    if (fd_) ::inotify_add_watch(fd_.get(), folder.c_str(), IN_MODIFY | IN_CREATE);
  }
  void wait() {
    pollfd one{fd_.get(), POLLIN, 0};
    ::poll(&one, 1, kPollMs);
    std::array<char, 4096> drain{};
    while (fd_ && ::read(fd_.get(), drain.data(), drain.size()) > 0) {
    }
  }

 private:
  Fd fd_;
};

class Streamer {
 public:
  Streamer(const LogRequest& request, http::BodyWriter& out) : request_(request), out_(out) {}

  void run() {
    std::optional<Watcher> watcher;
    if (request_.follow) watcher.emplace(request_.path);
    while (true) {
      // Asked before the reading: what was written before the end is read after it.
      const bool over = !request_.follow || is_over();
      if (!open() || !send_all()) {
        if (failed_) return;
      }
      if (over || out_.gone()) break;
      if (!keep_alive()) return;
      watcher->wait();
    }
    if (request_.event_stream) {
      flush_line();
      (void)out_.write("event: end\ndata: \n\n");
    }
  }

 private:
  bool is_over() {
    const auto now = std::chrono::steady_clock::now();
    if (!over_ && now - asked_ >= kAskInterval) {
      asked_ = now;
      over_ = request_.over();
    }
    return over_;
  }

  bool open() {
    if (fd_) return true;
    fd_ = Fd(::open(request_.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd_ && request_.tail_lines >= 0) offset_ = tail_offset(fd_.get(), request_.tail_lines);
    if (fd_ && request_.tail_lines == 0) {
      struct stat info {};
      if (::fstat(fd_.get(), &info) == 0) offset_ = info.st_size;
    }
    return static_cast<bool>(fd_);
  }

  bool send_all() {
    std::array<char, 65536> buffer{};
    while (true) {
      const ssize_t got = ::pread(fd_.get(), buffer.data(), buffer.size(), offset_);
      if (got <= 0) return true;
      offset_ += got;
      if (!send({buffer.data(), static_cast<std::size_t>(got)})) return false;
    }
  }

  bool send(std::string_view bytes) {
    last_sent_ = std::chrono::steady_clock::now();
    if (!request_.event_stream) return check(out_.write(bytes));
    std::string events;
    while (!bytes.empty()) {
      const auto end = bytes.find('\n');
      line_ += bytes.substr(0, end);
      if (end == std::string_view::npos) break;
      bytes.remove_prefix(end + 1);
      events += "data: " + event_text() + "\n\n";
    }
    return events.empty() || check(out_.write(events));
  }

  std::string event_text() {
    std::string text = clean_text(line_);
    line_.clear();
    for (char& c : text)
      if (c == '\r') c = ' ';  // would end the event's line
    return text;
  }

  void flush_line() {
    if (!line_.empty()) (void)check(out_.write("data: " + event_text() + "\n\n"));
  }

  bool keep_alive() {
    if (!request_.event_stream || std::chrono::steady_clock::now() - last_sent_ < kKeepAlive) return true;
    last_sent_ = std::chrono::steady_clock::now();
    return check(out_.write(": still here\n\n"));
  }

  bool check(Result<void> written) {
    failed_ = !written.ok();
    return !failed_;
  }

  const LogRequest& request_;
  http::BodyWriter& out_;
  Fd fd_;
  off_t offset_ = 0;
  std::string line_;
  bool over_ = false, failed_ = false;
  std::chrono::steady_clock::time_point asked_{}, last_sent_ = std::chrono::steady_clock::now();
};

}  // namespace

http::StreamBody stream_log(LogRequest request) {
  return [request = std::move(request)](http::BodyWriter& out) { Streamer(request, out).run(); };
}

}  // namespace lathe::jobs
