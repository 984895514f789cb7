// Token streams, made and read, for measuring what a proxy between the two adds.
//   bench_gateway upstream PORT                        every request gets 50 tokens a second, each with its
//   time bench_gateway read PORT PATH STREAMS SECONDS [FIELD...]   reads so many at once and prints delays in
//   µs
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

/// Streams are spread over the ticks of a token's time, so that they do not all speak at once.
int run_upstream(int port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0), epoll = ::epoll_create1(0);
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, 0), on = 1;
  const auto address = loopback(port);
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return 1;
  ::listen(listener, 4096);
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

int run_reader(int port, const std::string& path, int streams, int seconds,
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
  const auto address = loopback(port);
  std::vector<double> first, token;
  const std::int64_t start = now_ns();
  std::int64_t end = start + 60'000'000'000LL;
  int begun = 0;
  epoll_event events[256];
  while (now_ns() < end) {
    // One a millisecond, whatever the answers do: what is measured is streaming, not a burst of connections.
    for (; begun < streams && begun <= (now_ns() - start) / 1'000'000; ++begun) {
      const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
      if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return 1;
      watch(epoll, fd);
      open[fd].asked = now_ns();
      [[maybe_unused]] const auto sent = ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
      if (begun + 1 == streams) end = now_ns() + seconds * 1'000'000'000LL;
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
  if (argc == 3 && std::strcmp(argv[1], "upstream") == 0) return run_upstream(std::atoi(argv[2]));
  if (argc >= 6 && std::strcmp(argv[1], "read") == 0)
    return run_reader(std::atoi(argv[2]), argv[3], std::atoi(argv[4]), std::atoi(argv[5]),
                      {argv + 6, argv + argc});
  std::fprintf(stderr, "usage: %s upstream PORT | read PORT PATH STREAMS SECONDS [FIELD...]\n", argv[0]);
  return 2;
}
