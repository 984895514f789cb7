#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ids.h"
#include "db/database.h"
#include "http/api.h"

namespace lathe::accounts {

/// The trail of who did what. Written in the transaction of the change itself, so that there is never one
/// without the other. Safe from any thread.
class Audit {
 public:
  Audit(IdSource& ids, const Clock& clock) : ids_(ids), clock_(clock) {}

  /// `action` is `kind.verb` ("job.delete"); `object_id` the one it was done to; `detail` a few words more,
  /// no secrets. The user and their address are the call's.
  void record(db::Transaction& tx, const http::Call& call, std::string_view action,
              std::string_view object_kind, std::string_view object_id, std::string_view detail = {});
  /// The same for what happens outside a call, or before it is known who calls.
  void record(db::Transaction& tx, const http::Identity& who, std::string_view peer, std::string_view action,
              std::string_view object_kind, std::string_view object_id, std::string_view detail = {});

 private:
  IdSource& ids_;
  const Clock& clock_;
};

}  // namespace lathe::accounts
