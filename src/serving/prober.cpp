#include "serving/prober.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace lathe::serving {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTimeout{2'000};
constexpr std::size_t kStatusLine = sizeof "HTTP/1.1 200" - 1;

/// How long after an answer the next is asked for.
milliseconds pause_after(Health::Answer answer, bool ever_good, milliseconds age) {
  if (answer == Health::Answer::good) return milliseconds{1'000};
  if (ever_good) return milliseconds{250};
  if (age < milliseconds{5'000}) return milliseconds{10};
  return age < milliseconds{60'000} ? milliseconds{50} : milliseconds{250};
}

/// "HTTP/1.1 200 …" → 200; 0 if it is something else.
int status_of(std::string_view line) {
  if (line.size() < kStatusLine || !line.starts_with("HTTP/1.")) return 0;
  int status = 0;
  for (const char c : line.substr(kStatusLine - 3, 3)) {
    if (c < '0' || c > '9') return 0;
    status = status * 10 + (c - '0');
  }
  return status;
}

}  // namespace

struct Prober::Probe {
  explicit Probe(Target to, Clock::time_point now) : target(std::move(to)), since(now), next(now) {}

  enum class Phase { waiting, connecting, sending, reading };

  const Target target;
  const Clock::time_point since;
  Clock::time_point next;      ///< when waiting
  Clock::time_point deadline;  ///< otherwise
  Phase phase = Phase::waiting;
  Fd socket;
  std::string request;  ///< still to be sent
  std::string answer;
  bool ever_good = false;
  bool gone = false;  ///< no longer watched

  Health::Answer last = Health::Answer::unknown;
  int in_a_row = 0, status = 0;
  Clock::time_point first_of_row;
};

Prober::Prober(std::function<void(const std::string&)> changed)
    : changed_(std::move(changed)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { loop(); }) {}

Prober::~Prober() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  wake();
  thread_.join();
}

void Prober::wake() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
}

void Prober::watch(std::vector<Target> targets) {
  bool added = false;
  {
    const std::scoped_lock lock(mutex_);
    std::map<std::string, std::shared_ptr<Probe>> kept;
    for (Target& target : targets) {
      const auto it = probes_.find(target.id);
      std::shared_ptr<Probe> probe;
      if (it != probes_.end() && it->second->target == target) {
        probe = it->second;
      } else {
        probe = std::make_shared<Probe>(std::move(target), Clock::now());
        added = true;
      }
      kept.emplace(probe->target.id, probe);
    }
    for (const auto& [id, probe] : probes_)
      if (const auto it = kept.find(id); it == kept.end() || it->second != probe) probe->gone = true;
    probes_ = std::move(kept);
  }
  if (added) wake();
}

Health Prober::health(const std::string& replica_id) const {
  const std::scoped_lock lock(mutex_);
  const auto it = probes_.find(replica_id);
  if (it == probes_.end() || it->second->last == Health::Answer::unknown) return {};
  const Probe& probe = *it->second;
  return {.last = probe.last,
          .in_a_row = probe.in_a_row,
          .lasting = std::chrono::duration_cast<Duration>(Clock::now() - probe.first_of_row),
          .status = probe.status};
}

void Prober::loop() {
  std::vector<std::shared_ptr<Probe>> all;
  std::vector<pollfd> polled;
  while (true) {
    {
      const std::scoped_lock lock(mutex_);
      if (ending_) return;
      all.clear();
      for (const auto& [id, probe] : probes_) all.push_back(probe);
    }
    auto now = Clock::now();
    auto wait_until = now + std::chrono::hours(1);
    polled.assign(1, {.fd = wake_.get(), .events = POLLIN, .revents = 0});
    for (const auto& probe : all) {
      if (probe->phase == Probe::Phase::waiting && probe->next <= now) begin(*probe, now);
      const bool waiting = probe->phase == Probe::Phase::waiting;
      wait_until = std::min(wait_until, waiting ? probe->next : probe->deadline);
      const bool reading = probe->phase == Probe::Phase::reading;
      polled.push_back({.fd = waiting ? -1 : probe->socket.get(),
                        .events = static_cast<short>(reading ? POLLIN : POLLOUT),
                        .revents = 0});
    }
    now = Clock::now();
    const auto wait = std::chrono::ceil<milliseconds>(std::max(wait_until - now, Clock::duration::zero()));
    ::poll(polled.data(), polled.size(), static_cast<int>(wait.count()));
    if (polled[0].revents != 0) {
      std::uint64_t count = 0;
      [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
    }
    now = Clock::now();
    for (std::size_t i = 0; i < all.size(); ++i) {
      Probe& probe = *all[i];
      if (probe.phase == Probe::Phase::waiting) continue;
      if (polled[i + 1].revents != 0) {
        advance(probe, polled[i + 1].revents, now);
      } else if (probe.deadline <= now) {
        finish(probe, Health::Answer::silent, 0, now);
      }
    }
  }
}

void Prober::begin(Probe& probe, Clock::time_point now) {
  probe.socket = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  probe.deadline = now + kTimeout;
  probe.answer.clear();
  probe.request = probe.target.path.empty()
                      ? ""
                      : fmt::format("GET {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
                                    probe.target.path, probe.target.host, probe.target.port);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(probe.target.port));
  if (inet_pton(AF_INET, probe.target.host.c_str(), &address.sin_addr) != 1)
    return finish(probe, Health::Answer::refused, 0, now);
  const int made = ::connect(probe.socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (made != 0 && errno != EINPROGRESS) return finish(probe, Health::Answer::refused, 0, now);
  probe.phase = Probe::Phase::connecting;
  if (made == 0) advance(probe, POLLOUT, now);
}

void Prober::advance(Probe& probe, short ready, Clock::time_point now) {
  if (probe.phase == Probe::Phase::connecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(probe.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0 || (ready & POLLOUT) == 0) return finish(probe, Health::Answer::refused, 0, now);
    if (probe.request.empty()) return finish(probe, Health::Answer::good, 0, now);
    probe.phase = Probe::Phase::sending;
  }
  if (probe.phase == Probe::Phase::sending) {
    const auto sent = ::send(probe.socket.get(), probe.request.data(), probe.request.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) return finish(probe, Health::Answer::bad, 0, now);
    probe.request.erase(0, static_cast<std::size_t>(sent));
    if (probe.request.empty()) probe.phase = Probe::Phase::reading;
    return;
  }
  char buffer[256];
  const auto got = ::recv(probe.socket.get(), buffer, sizeof buffer, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got > 0) probe.answer.append(buffer, static_cast<std::size_t>(got));
  if (got > 0 && probe.answer.size() < kStatusLine) return;
  const int status = status_of(probe.answer);
  finish(probe, status >= 200 && status < 300 ? Health::Answer::good : Health::Answer::bad, status, now);
}

void Prober::finish(Probe& probe, Health::Answer answer, int status, Clock::time_point now) {
  probe.socket.reset();
  probe.phase = Probe::Phase::waiting;
  bool tell = false;
  {
    const std::scoped_lock lock(mutex_);
    const bool other = answer != probe.last;
    if (other) {
      probe.in_a_row = 0;
      probe.first_of_row = now;
    }
    probe.in_a_row += 1;
    probe.last = answer;
    probe.status = status;
    probe.ever_good = probe.ever_good || answer == Health::Answer::good;
    tell = !probe.gone && (other || (probe.ever_good && answer != Health::Answer::good));
  }
  const auto age = std::chrono::duration_cast<milliseconds>(now - probe.since);
  probe.next = now + pause_after(answer, probe.ever_good, age);
  if (tell) changed_(probe.target.id);
}

}  // namespace lathe::serving
