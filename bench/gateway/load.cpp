// The load of the gateway's benchmark, and the upstreams behind the proxies.
//   answer PORT BYTES                          answers every request with so many bytes, and makes the load
//   stream PORT                                gives every request 50 tokens a second, each with its time
//   read PORT PATH STREAMS SECONDS [FIELD...]  reads so many streams at once and prints delays in µs
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

constexpr int kTokenMs = 20;

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

sockaddr_in loopback(int port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(static_cast<std::uint16_t>(port));
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return out;
}

void watch(int epoll, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

void send_token(int fd, std::string_view before) {
  char event[64], all[256];
  const int size = std::snprintf(event, sizeof event, "data: %lld\n\n", static_cast<long long>(now_ns()));
  const int total = std::snprintf(all, sizeof all, "%.*s%x\r\n%s\r\n", static_cast<int>(before.size()),
                                  before.data(), size, event);
  [[maybe_unused]] const auto sent = ::send(fd, all, static_cast<std::size_t>(total), MSG_NOSIGNAL);
}

int listen_on(int port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0), on = 1;
  const auto address = loopback(port);
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return -1;
  return ::listen(listener, 4096) == 0 ? listener : -1;
}

/// Streams are spread over the ticks of a token's time, so that they do not all speak at once.
int run_streams(int port) {
  const int listener = listen_on(port), epoll = ::epoll_create1(0);
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, 0), on = 1;
  if (listener < 0) return 1;
  const itimerspec each{.it_interval = {.tv_sec = 0, .tv_nsec = 1'000'000},
                        .it_value = {.tv_sec = 0, .tv_nsec = 1}};
  ::timerfd_settime(timer, 0, &each, nullptr);
  watch(epoll, listener);
  watch(epoll, timer);
  std::map<int, int> slot_of;
  std::vector<std::vector<int>> slots(kTokenMs);
  std::size_t tick = 0;
  int next = 0;
  epoll_event events[256];
  for (;;) {
    const int count = ::epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener) {
        const int one = ::accept(listener, nullptr, nullptr);
        ::setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, one);
      } else if (fd == timer) {
        std::uint64_t ticks = 0;
        if (::read(timer, &ticks, sizeof ticks) != sizeof ticks) continue;
        for (; ticks > 0; --ticks)
          for (const int stream : slots[tick++ % kTokenMs]) send_token(stream, {});
      } else {
        char buffer[8192];
        const auto got = ::recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0) {
          if (const auto it = slot_of.find(fd); it != slot_of.end()) {
            std::erase(slots[static_cast<std::size_t>(it->second)], fd);
            slot_of.erase(it);
          }
          ::close(fd);
        } else if (!slot_of.contains(fd)) {
          slot_of[fd] = next++ % kTokenMs;
          slots[static_cast<std::size_t>(slot_of[fd])].push_back(fd);
          send_token(fd,
                     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
                     "chunked\r\n\r\n");
        }
      }
    }
  }
}

double percentile(std::vector<double>& values, double part) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

int connected_to(int port) {
  const auto address = loopback(port);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0), on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? fd : -1;
}

/// The cheapest upstream there can be, so that the proxy before it is what is measured; and, when it is told
/// to by a request for /ask/PORT/CONNECTIONS/MILLISECONDS/PATH, the load before that proxy as well. One
/// thread is both: two that share a processor would take turns of milliseconds, and these would be the 99th
/// percentile.
class Load {
 public:
  explicit Load(std::size_t bytes)
      : answer_("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " +
                std::to_string(bytes) + "\r\n\r\n" + std::string(bytes, 'x')) {}

  int run(int port) {
    listener_ = listen_on(port);
    if (listener_ < 0) return 1;
    watch(epoll_, listener_);
    for (;;) turn();
  }

 private:
  struct Asking {
    std::int64_t since = 0;
    std::size_t left = 0;  ///< bytes of the answer
    std::string head;
  };

  void turn() {
    epoll_event events[256];
    const int count = ::epoll_wait(epoll_, events, 256, 100);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener_) {
        const int one = ::accept(listener_, nullptr, nullptr), on = 1;
        ::setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll_, one);
      } else if (const auto it = asking_.find(fd); it != asking_.end()) {
        hear(fd, it->second);
      } else {
        answer(fd);
      }
    }
  }

  void answer(int fd) {
    char buffer[16384];
    const auto got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) {
      rests_.erase(fd);
      ::close(fd);
      return;
    }
    std::string& rest = rests_[fd];
    rest.append(buffer, static_cast<std::size_t>(got));
    for (std::size_t end; (end = rest.find("\r\n\r\n")) != std::string::npos;) {
      const std::string head = rest.substr(0, end + 4);
      rest.erase(0, end + 4);
      if (head.starts_with("GET /ask/"))
        measure(fd, head);
      else
        say(fd, answer_);
    }
  }

  static void say(int fd, std::string_view what) {
    if (::send(fd, what.data(), what.size(), MSG_NOSIGNAL) != static_cast<std::ptrdiff_t>(what.size()))
      std::abort();
  }

  void ask(int fd, Asking& one) {
    one.since = now_ns();
    say(fd, request_);
  }

  void hear(int fd, Asking& one) {
    char buffer[16384];
    const auto got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) return fail(fd, "a connection ended");
    std::size_t bytes = static_cast<std::size_t>(got);
    if (one.left == 0) {
      one.head.append(buffer, bytes);
      const auto stop = one.head.find("\r\n\r\n");
      if (stop == std::string::npos) return;
      one.left = size_of(one.head, stop);
      if (one.left == 0) return fail(fd, one.head.substr(0, stop));
      bytes = one.head.size();
      one.head.clear();
    }
    one.left -= std::min(one.left, bytes);
    if (one.left > 0) return;
    taken_.push_back(static_cast<double>(now_ns() - one.since) / 1e3);
    ask(fd, one);
  }

  /// Of the whole answer; 0 where it is not a good one.
  static std::size_t size_of(const std::string& head, std::size_t stop) {
    if (!head.starts_with("HTTP/1.1 200 ")) return 0;
    for (auto at = head.find("\r\n"); at < stop; at = head.find("\r\n", at + 2))
      if (::strncasecmp(head.c_str() + at + 2, "content-length: ", 16) == 0)
        return static_cast<std::size_t>(std::atoll(head.c_str() + at + 18)) + stop + 4;
    return 0;
  }

  void fail(int fd, std::string why) {
    failure_ = std::move(why);
    asking_.erase(fd);
    ::close(fd);
  }

  /// As many connections, each of which asks again as soon as it has its answer. The times are those that the
  /// requests took; nothing is added for those that a pause kept from being sent.
  void measure(int control, const std::string& head) {
    int port = 0, connections = 0, milliseconds = 0, path = 0;
    std::sscanf(head.c_str(), "GET /ask/%d/%d/%d%n", &port, &connections, &milliseconds, &path);
    request_ = "GET " + head.substr(static_cast<std::size_t>(path));  // with the fields that came with it
    taken_.clear();
    failure_.clear();
    for (int i = 0; i < connections; ++i) {
      const int fd = connected_to(port);
      if (fd < 0) std::abort();
      watch(epoll_, fd);
      ask(fd, asking_[fd]);
    }
    const std::int64_t start = now_ns(), end = start + milliseconds * 1'000'000LL;
    while (now_ns() < end && failure_.empty()) turn();
    const double seconds = static_cast<double>(now_ns() - start) / 1e9;
    for (const auto& [fd, one] : asking_) ::close(fd);
    asking_.clear();
    char result[512];
    const int size = std::snprintf(result, sizeof result,
                                   "{\"requests\": %zu, \"rate\": %.0f, \"p99\": %.0f, \"failure\": \"%s\"}",
                                   taken_.size(), static_cast<double>(taken_.size()) / seconds,
                                   percentile(taken_, 0.99), failure_.substr(0, failure_.find('\r')).c_str());
    say(control, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" + result);
  }

  const std::string answer_;
  const int epoll_ = ::epoll_create1(0);
  int listener_ = -1;
  std::unordered_map<int, std::string> rests_;  ///< of requests
  std::unordered_map<int, Asking> asking_;
  std::string request_, failure_;
  std::vector<double> taken_;
};

int run_reader(int port, const std::string& path, int streams, double seconds,
               const std::vector<std::string>& fields) {
  struct Stream {
    std::int64_t asked = 0;
    std::string rest;
    bool begun = false;
  };
  const int epoll = ::epoll_create1(0);
  std::map<int, Stream> open;
  std::string request = "GET " + path + " HTTP/1.1\r\nHost: bench\r\n";
  for (const auto& field : fields) request += field + "\r\n";
  request += "\r\n";
  std::vector<double> first, token;
  const std::int64_t start = now_ns();
  std::int64_t end = start + 60'000'000'000LL;
  int begun = 0;
  epoll_event events[256];
  while (now_ns() < end) {
    // One a millisecond, whatever the answers do: what is measured is streaming, not a burst of connections.
    for (; begun < streams && begun <= (now_ns() - start) / 1'000'000; ++begun) {
      const int fd = connected_to(port);
      if (fd < 0) return 1;
      watch(epoll, fd);
      open[fd].asked = now_ns();
      [[maybe_unused]] const auto sent = ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
      if (begun + 1 == streams) end = now_ns() + static_cast<std::int64_t>(seconds * 1e9);
    }
    const int count = ::epoll_wait(epoll, events, 256, 1);
    for (int i = 0; i < count; ++i) {
      char buffer[16384];
      const int fd = events[i].data.fd;
      const auto got = ::recv(fd, buffer, sizeof buffer, 0);
      const std::int64_t now = now_ns();
      if (got <= 0) {
        std::fprintf(stderr, "a stream ended\n");
        return 1;
      }
      Stream& stream = open[fd];
      stream.rest.append(buffer, static_cast<std::size_t>(got));
      for (std::size_t at; (at = stream.rest.find("data: ")) != std::string::npos;) {
        const auto stop = stream.rest.find("\n\n", at);
        if (stop == std::string::npos) break;
        const double sent = std::atof(stream.rest.c_str() + at + 6);
        if (!stream.begun)
          first.push_back(static_cast<double>(now - stream.asked) / 1e3);
        else
          token.push_back((static_cast<double>(now) - sent) / 1e3);
        stream.begun = true;
        stream.rest.erase(0, stop + 2);
      }
    }
  }
  std::printf("{\"streams\": %zu, \"tokens\": %zu, \"first\": [%.0f, %.0f], \"token\": [%.0f, %.0f]}\n",
              first.size(), token.size(), percentile(first, 0.5), percentile(first, 0.99),
              percentile(token, 0.5), percentile(token, 0.99));
  return first.size() == static_cast<std::size_t>(streams) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto number = [&](std::size_t at) { return std::atoi(words[at].c_str()); };
  const std::string what = words.empty() ? "" : words[0];
  if (what == "stream" && words.size() == 2) return run_streams(number(1));
  if (what == "answer" && words.size() == 3) return Load(static_cast<std::size_t>(number(2))).run(number(1));
  if (what == "read" && words.size() >= 5)
    return run_reader(number(1), words[2], number(3), std::atof(words[4].c_str()),
                      {words.begin() + 5, words.end()});
  std::fprintf(stderr,
               "usage: bench_gateway answer PORT BYTES | stream PORT |"
               " read PORT PATH STREAMS SECONDS [FIELD...]\n");
  return 2;
}
