#include "accounts/audit.h"

namespace lathe::accounts {

void Audit::record(db::Transaction& tx, const http::Call& call, std::string_view action,
                   std::string_view object_kind, std::string_view object_id, std::string_view detail) {
  record(tx, call.caller, call.request.peer, action, object_kind, object_id, detail);
}

void Audit::record(db::Transaction& tx, const http::Identity& who, std::string_view peer,
                   std::string_view action, std::string_view object_kind, std::string_view object_id,
                   std::string_view detail) {
  tx.execute(
      "INSERT INTO audit (id, happened_at, user_id, user_name, peer, action, object_kind, object_id, detail) "
      "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
      {ids_.next(), clock_.now().time_since_epoch().count(), who.user_id, who.user_name, std::string(peer),
       std::string(action), std::string(object_kind), std::string(object_id), std::string(detail)});
}

}  // namespace lathe::accounts
