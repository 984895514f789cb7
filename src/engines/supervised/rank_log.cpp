#include "engines/supervised/rank_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace lathe::engines {

namespace {
constexpr std::size_t kTail = 64 * 1024;
}

RankLog::RankLog(Fd file, std::int64_t limit) : file_(std::move(file)), room_(limit), limited_(limit > 0) {}

void RankLog::append(std::string_view bytes) {
  if (limited_) {
    const auto fits =
        static_cast<std::size_t>(std::min<std::int64_t>(room_, static_cast<std::int64_t>(bytes.size())));
    write_out(bytes.substr(0, fits));
    room_ -= static_cast<std::int64_t>(fits);
    bytes.remove_prefix(fits);
    if (bytes.empty()) return;
    if (beyond_ == 0)
      write_out(
          fmt::format("\n[lathe] the log has reached its limit; what follows is dropped, but for the end\n"));
    beyond_ += static_cast<std::int64_t>(bytes.size());
    tail_ += bytes;
    if (tail_.size() > 2 * kTail) tail_.erase(0, tail_.size() - kTail);
    return;
  }
  write_out(bytes);
}

void RankLog::finish() {
  if (beyond_ > 0) {
    if (tail_.size() > kTail) tail_.erase(0, tail_.size() - kTail);
    const auto missing = beyond_ - static_cast<std::int64_t>(tail_.size());
    if (missing > 0) write_out(fmt::format("[lathe] {} bytes are missing here\n", missing));
    write_out(tail_);
    tail_.clear();
  }
  if (failed_ > 0)
    write_out(fmt::format("\n[lathe] {} bytes could not be written: the disk was full\n", failed_));
  ::fdatasync(file_.get());
}

void RankLog::write_out(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(file_.get(), bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      failed_ += static_cast<std::int64_t>(bytes.size());
      return;
    }
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace lathe::engines
