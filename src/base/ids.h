#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"

namespace lathe {

/// Where identifiers come from. Every id is 32 lower-case hexadecimal digits and sorts by the time it was
/// made.
class IdSource {
 public:
  virtual ~IdSource() = default;
  /// Safe from any thread.
  virtual std::string next() = 0;
};

/// UUID version 7 without dashes (RFC 9562 §5.7), strictly increasing within a process.
class Uuid7Source final : public IdSource {
 public:
  explicit Uuid7Source(const Clock& clock) : clock_(clock) {}
  std::string next() override;

 private:
  const Clock& clock_;
};

/// `0190…` → `0190abcd-…`: the dashed form, used by evaluation tasks.
std::string dashed(std::string_view id);
/// Accepts either form and gives the one without dashes; anything else comes back unchanged.
std::string undashed(std::string_view id);

/// `bytes` random bytes as hexadecimal digits, from the kernel's generator: for secrets.
std::string random_hex(std::size_t bytes);

}  // namespace lathe
