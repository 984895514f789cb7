#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/accounts.h"
#include "db/row.h"

/// The tables of the accounts. Every function runs inside the transaction it is given.
namespace lathe::accounts::store {

struct UserRow {
  std::string id;
  std::int64_t number = 0;                 ///< `id` as a number, for order
  std::optional<std::string> creation_id;  ///< the id of the call that made it, so that a repeat finds it
  std::string user_name;
  std::string name_key;  ///< names that differ in case only are one
  std::string password;
  bool admin = false;
  bool disabled = false;
  Time created_at{};
  User user() const;  ///< without the mark
};
void fields(Fields& f, UserRow& row);

std::string name_key(std::string_view user_name);
std::optional<UserRow> user(db::Transaction& tx, std::string_view id);
std::optional<UserRow> user_named(db::Transaction& tx, std::string_view user_name);
std::optional<UserRow> user_created_by(db::Transaction& tx, std::string_view creation_id);
/// Newest first, those before the user `before` (empty: from the start).
std::vector<UserRow> users(db::Transaction& tx, std::string_view before, std::int64_t limit);
bool any_user(db::Transaction& tx);
/// Gives the row its id and number. Failure: already_exists.
void insert_user(db::Transaction& tx, UserRow& row);
void update_user(db::Transaction& tx, const UserRow& row);
/// Also ends the user's sessions and API keys.
void delete_user(db::Transaction& tx, std::string_view id);
/// Counts under a lock that every change of a user takes, so that two changes cannot each leave the other's
/// administrator as the last.
std::int64_t enabled_admins(db::Transaction& tx);

struct SessionRow {
  std::string id, token_hash, user_id;
  Time created_at{}, last_used_at{}, expires_at{};
  std::string peer;
};
void fields(Fields& f, SessionRow& row);

std::optional<SessionRow> session(db::Transaction& tx, std::string_view token_hash);
void insert_session(db::Transaction& tx, const SessionRow& row);
void touch_session(db::Transaction& tx, std::string_view id, Time now);
std::int64_t delete_session(db::Transaction& tx, std::string_view token_hash);
/// Ends a user's sessions, but for the one with the hash `but` (empty: all).
void delete_sessions(db::Transaction& tx, std::string_view user_id, std::string_view but);
/// Removes what has expired, and of this user's sessions all but the newest `keep`.
void trim_sessions(db::Transaction& tx, std::string_view user_id, std::int64_t keep, Time now);

struct KeyRow {
  std::string id, token_hash, user_id, name, hint;
  Time created_at{};
  std::optional<Time> last_used_at, expires_at;
};
void fields(Fields& f, KeyRow& row);

std::optional<KeyRow> key_with_hash(db::Transaction& tx, std::string_view token_hash);
std::optional<KeyRow> key(db::Transaction& tx, std::string_view id);
std::vector<KeyRow> keys(db::Transaction& tx, std::string_view user_id, std::string_view before,
                         std::int64_t limit);
std::int64_t count_keys(db::Transaction& tx, std::string_view user_id);
void insert_key(db::Transaction& tx, const KeyRow& row);
void update_key(db::Transaction& tx, const KeyRow& row);
void touch_key(db::Transaction& tx, std::string_view id, Time now);
void delete_key(db::Transaction& tx, std::string_view id);

struct AuditRow {
  std::string id;
  Time happened_at{};
  std::string user_id, user_name, peer, action, object_kind, object_id, detail;
};
void fields(Fields& f, AuditRow& row);

/// What the trail is narrowed to; empty means any.
struct AuditFilter {
  std::string user_id, action, object_kind, object_id;
};
std::vector<AuditRow> audit(db::Transaction& tx, const AuditFilter& filter, std::string_view before,
                            std::int64_t limit);
/// Takes out of the oldest `limit` entries those that happened before; gives how many.
std::int64_t drop_audit(db::Transaction& tx, Time before, std::int64_t limit);
inline constexpr std::string_view kDropAudit =
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT $2) AND happened_at < $1";

}  // namespace lathe::accounts::store
