#include "gateway/counting.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <numeric>

namespace lathe::gateway {

namespace {

constexpr auto relaxed = std::memory_order_relaxed;
/// So long after the last request that was left unanswered a replica gets its chance again.
constexpr std::chrono::seconds kUnansweredCounts{30};

std::uint64_t next_serial() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

double as_seconds(std::uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e9;
}

}  // namespace

std::uint64_t Times::total() const {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

void TimeCounts::add(std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  const auto bucket = std::lower_bound(kTimeBounds.begin(), kTimeBounds.end(), seconds) - kTimeBounds.begin();
  counts_[static_cast<std::size_t>(bucket)].fetch_add(1, relaxed);
  nanoseconds_.fetch_add(static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0)), relaxed);
}

std::uint64_t TimeCounts::count() const {
  std::uint64_t sum = 0;
  for (const auto& one : counts_) sum += one.load(relaxed);
  return sum;
}

void TimeCounts::add_to(Times& times) const {
  for (std::size_t i = 0; i < counts_.size(); ++i) times.counts[i] += counts_[i].load(relaxed);
  times.seconds += as_seconds(nanoseconds_.load(relaxed));
}

void Level::move(Moment now) {
  // Another thread may have looked at the clock a little later and been here first.
  if (now <= moved_at_) return;
  if (const auto count = count_.load(relaxed); count > 0)
    nanoseconds_ += count * static_cast<std::uint64_t>((now - moved_at_).count());
  moved_at_ = now;
}

std::uint64_t Level::enter(Moment now) {
  const std::scoped_lock lock(mutex_);
  move(now);
  return count_.fetch_add(1) + 1;
}

std::uint64_t Level::leave(Moment now) {
  const std::scoped_lock lock(mutex_);
  move(now);
  return count_.fetch_sub(1) - 1;
}

double Level::seconds(Moment now) const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t sum = nanoseconds_;
  if (now > moved_at_) {
    const auto count = count_.load(relaxed);
    if (count > 0) sum += count * static_cast<std::uint64_t>((now - moved_at_).count());
  }
  return as_seconds(sum);
}

Target::Target(Upstream to, const std::string& service, const std::string& version, Registry* owner)
    : upstream(std::move(to)),
      serial(next_serial()),
      service_id(service),
      version_id(version),
      log_words(" service=" + service + " version=" + version + " replica=" + upstream.id),
      registry(owner) {
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  if (::inet_pton(AF_INET, upstream.host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(upstream.port);
    address_size = sizeof v4;
    authority = upstream.host + ":" + std::to_string(upstream.port);
  } else if (::inet_pton(AF_INET6, upstream.host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(upstream.port);
    address_size = sizeof v6;
    authority = "[" + upstream.host + "]:" + std::to_string(upstream.port);
  }
}

void Target::begins_answer(std::chrono::nanoseconds after) {
  first_byte.add(after);
  // Read first: what every answer writes to would go from core to core.
  if (unanswered.load(relaxed) > 0) unanswered.store(0, relaxed);
}

void Target::leaves_unanswered(Moment now) {
  unanswered.fetch_add(1, relaxed);
  unanswered_until.store((now + kUnansweredCounts).time_since_epoch().count(), relaxed);
}

std::uint64_t Target::load(Moment now) const {
  const auto given_up = unanswered.load(relaxed);
  if (given_up == 0 || now.time_since_epoch().count() >= unanswered_until.load(relaxed))
    return in_flight.now();
  return in_flight.now() + given_up;
}

std::uint64_t Target::sent() const {
  return first_byte.count() + bytes_out.load(relaxed);
}

void Target::add_to(Counters& counters, Moment now) const {
  counters.requests += requests.load(relaxed);
  counters.failures += failures.load(relaxed);
  counters.in_flight += in_flight.now();
  counters.concurrency_seconds += in_flight.seconds(now);
  counters.bytes_in += bytes_in.load(relaxed);
  counters.bytes_out += bytes_out.load(relaxed);
  counters.prompt_tokens += prompt_tokens.load(relaxed);
  counters.completion_tokens += completion_tokens.load(relaxed);
  first_byte.add_to(counters.first_byte);
  duration.add_to(counters.duration);
}

void add(Counters& sum, const Counters& more) {
  sum.requests += more.requests;
  sum.failures += more.failures;
  sum.in_flight += more.in_flight;
  sum.concurrency_seconds += more.concurrency_seconds;
  sum.bytes_in += more.bytes_in;
  sum.bytes_out += more.bytes_out;
  sum.prompt_tokens += more.prompt_tokens;
  sum.completion_tokens += more.completion_tokens;
  for (auto [into, from] : {std::pair(&sum.first_byte, &more.first_byte), {&sum.duration, &more.duration}}) {
    for (std::size_t i = 0; i < from->counts.size(); ++i) into->counts[i] += from->counts[i];
    into->seconds += from->seconds;
  }
}

}  // namespace lathe::gateway
