#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ids.h"
#include "db/database.h"
#include "http/api.h"

namespace lathe::accounts {

/// Remembers, for 24 hours, which id a request with an Idempotency-Key was given. Safe from any thread.
class Idempotency {
 public:
  Idempotency(db::Database& db, IdSource& ids, const Clock& clock) : db_(db), ids_(ids), clock_(clock) {}

  /// What http::Api::Hooks::reserve_id asks for. unsatisfiable if the key came with another request before,
  /// invalid_argument if it is not 1 to 255 printable ASCII characters. Nothing is kept for nobody.
  Result<std::string> reserve(const http::Identity& who, std::string_view key, std::string_view operation,
                              std::string_view digest);

 private:
  db::Database& db_;
  IdSource& ids_;
  const Clock& clock_;
  std::atomic<std::int64_t> swept_at_{0};  ///< milliseconds
};

}  // namespace lathe::accounts
