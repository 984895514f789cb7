#include "accounts/login_limiter.h"

#include <fmt/format.h>

namespace lathe::accounts {

namespace {

constexpr std::size_t kMostWindows = 20'000;

std::string key_of(const std::string& user_name, const std::string& peer) {
  return peer + '\n' + user_name;
}

}  // namespace

Result<void> LoginLimiter::begin(const std::string& user_name, const std::string& peer) {
  const Time now = clock_.now();
  const std::lock_guard lock(mutex_);
  make_room(now);
  Window& window = windows_[key_of(user_name, peer)];
  if (window.ends <= now) window = {now + kWindow, 0};
  if (window.tries >= kTries) {
    const auto wait = std::chrono::ceil<std::chrono::seconds>(window.ends - now);
    Error error{Code::resource_exhausted,
                {fmt::format("登录失败次数过多，请 {} 秒后再试", wait.count()),
                 fmt::format("too many failed logins, try again in {} seconds", wait.count())}};
    error.retry_after = wait;
    return error;
  }
  ++window.tries;
  return {};
}

void LoginLimiter::succeeded(const std::string& user_name, const std::string& peer) {
  const std::lock_guard lock(mutex_);
  windows_.erase(key_of(user_name, peer));
}

void LoginLimiter::make_room(Time now) {
  if (windows_.size() < kMostWindows) return;
  std::erase_if(windows_, [&](const auto& item) { return item.second.ends <= now; });
  // Names are the attacker's to invent; forgetting all windows then costs less than the memory for them, and
  // argon2id still slows the guessing.
  if (windows_.size() >= kMostWindows) windows_.clear();
}

}  // namespace lathe::accounts
