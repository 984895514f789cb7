#include "accounts/passwords.h"

#include <fmt/format.h>
#include <sodium.h>

#include <array>
#include <stdexcept>

namespace lathe::accounts {

namespace {

constexpr std::size_t kMostWaiting = 64;
constexpr std::chrono::seconds kLongestWait{10};

std::string unpadded_base64(std::size_t random_bytes) {
  std::string raw(random_bytes, '\0');
  randombytes_buf(raw.data(), raw.size());
  constexpr int kVariant = sodium_base64_VARIANT_ORIGINAL_NO_PADDING;
  std::string out(sodium_base64_encoded_len(raw.size(), kVariant), '\0');
  sodium_bin2base64(out.data(), out.size(), reinterpret_cast<const unsigned char*>(raw.data()), raw.size(),
                    kVariant);
  out.pop_back();  // the terminator
  return out;
}

/// A well-formed hash that no password has: checking against it does all the work of a real check.
std::string impossible_hash(const PasswordCost& cost) {
  if (sodium_init() < 0) throw std::runtime_error("libsodium cannot be initialised");
  return fmt::format("$argon2id$v=19$m={},t={},p=1${}${}", cost.memory_bytes / 1024, cost.passes,
                     unpadded_base64(16), unpadded_base64(32));
}

Error too_busy() {
  Error error{Code::resource_exhausted,
              {"登录请求过多，请稍后再试", "too many logins at the same time, try again shortly"}};
  error.retry_after = std::chrono::seconds{5};
  return error;
}

}  // namespace

Passwords::Passwords(PasswordCost cost, std::size_t concurrent)
    : cost_(cost), nobody_(impossible_hash(cost)), free_(concurrent) {}

Result<void> Passwords::acquire() {
  std::unique_lock lock(mutex_);
  if (free_ == 0) {
    if (waiting_ >= kMostWaiting) return too_busy();
    ++waiting_;
    const bool got = freed_.wait_for(lock, kLongestWait, [&] { return free_ > 0; });
    --waiting_;
    if (!got) return too_busy();
  }
  --free_;
  return {};
}

void Passwords::release() {
  {
    const std::lock_guard lock(mutex_);
    ++free_;
  }
  freed_.notify_one();
}

Result<std::string> Passwords::hash(std::string_view password) {
  TRY(acquire());
  std::array<char, crypto_pwhash_STRBYTES> out{};
  const int failed =
      crypto_pwhash_str(out.data(), password.data(), password.size(), cost_.passes, cost_.memory_bytes);
  release();
  if (failed != 0) return system_error("argon2id", ENOMEM);
  return std::string(out.data());
}

Result<bool> Passwords::verify(std::string_view hash, std::string_view password) {
  const std::string stored(hash.empty() ? std::string_view(nobody_) : hash);
  TRY(acquire());
  const bool right = crypto_pwhash_str_verify(stored.c_str(), password.data(), password.size()) == 0;
  release();
  return right && !hash.empty();
}

}  // namespace lathe::accounts
