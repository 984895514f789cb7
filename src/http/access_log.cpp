#include "http/access_log.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>

#include "base/log.h"

namespace lathe::http {

namespace {

constexpr std::size_t kCapacity = 64 * 1024;
constexpr std::chrono::milliseconds kLatest{100};
/// A path of more is cut: with the rest, a line has room in an empty buffer.
constexpr std::size_t kLongestText = 8 * 1024;
constexpr std::size_t kNumbers = 256;
constexpr std::size_t kStampSize = 19;

}  // namespace

/// Writes into room that is known to suffice.
class AccessLog::Line {
 public:
  explicit Line(char* at) : at_(at) {}
  Line& text(std::string_view text) {
    text = text.substr(0, kLongestText);
    at_ = std::copy(text.begin(), text.end(), at_);
    return *this;
  }
  Line& number(std::uint64_t value) {
    at_ = std::to_chars(at_, at_ + std::numeric_limits<std::uint64_t>::digits10 + 1, value).ptr;
    return *this;
  }
  Line& signed_number(int value) {
    at_ = std::to_chars(at_, at_ + std::numeric_limits<int>::digits10 + 2, value).ptr;
    return *this;
  }
  Line& three_digits(unsigned value) {
    for (const unsigned unit : {100U, 10U, 1U}) *at_++ = static_cast<char>('0' + value / unit % 10);
    return *this;
  }
  char* end() const { return at_; }

 private:
  char* at_;
};

void AccessLog::note_second(std::time_t second) {
  std::tm at{};
  ::localtime_r(&second, &at);
  std::strftime(stamp_, sizeof stamp_, "%Y-%m-%dT%H:%M:%S", &at);
  second_ = second;
}

void AccessLog::add(const AccessEntry& entry) {
  if (!log::enabled(log::Level::info)) return;
  std::size_t most = kNumbers;
  for (const auto text : {entry.method, entry.path, entry.peer, entry.id, entry.words})
    most += std::min(text.size(), kLongestText);
  if (kCapacity - size_ < most) flush();
  if (!lines_) lines_ = std::make_unique_for_overwrite<char[]>(kCapacity);

  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != second_) note_second(now.tv_sec);
  Line line(lines_.get() + size_);
  line.text({stamp_, kStampSize}).text(".").three_digits(static_cast<unsigned>(now.tv_nsec / 1'000'000));
  line.text(" info ").text(entry.method.empty() ? "-" : entry.method).text(" ").text(entry.path).text(" ");
  line.signed_number(entry.status).text(" ");
  if (entry.grpc_status)
    line.text("grpc-status=").signed_number(*entry.grpc_status);
  else
    line.number(entry.bytes);
  const auto tenths =
      static_cast<std::uint64_t>(std::max<std::int64_t>(entry.taken.count(), 0) + 50'000) / 100'000;
  line.text(" ").number(tenths / 10).text(".").number(tenths % 10).text("ms ").text(entry.peer).text(" ");
  line.text(entry.id).text(entry.words).text(entry.cut ? " (cut)\n" : "\n");
  size_ = static_cast<std::size_t>(line.end() - lines_.get());

  if (scheduled_) return;
  scheduled_ = true;
  loop_.call_at(loop_.now() + kLatest, [this] {
    scheduled_ = false;
    flush();
  });
}

void AccessLog::flush() {
  if (size_ > 0) log::write_lines({lines_.get(), std::exchange(size_, 0)});
}

}  // namespace lathe::http
