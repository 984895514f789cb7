#include "accounts/accounts_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace lathe::accounts::store {

namespace {

std::int64_t milliseconds(Time time) {
  return time.time_since_epoch().count();
}

db::Value text(std::string_view value) {
  return std::string(value);
}

}  // namespace

void fields(Fields& f, UserRow& row) {
  f.field("id", row.id);
  f.field("number", row.number);
  f.field("creation_id", row.creation_id);
  f.field("user_name", row.user_name);
  f.field("name_key", row.name_key);
  f.field("password", row.password);
  f.field("admin", row.admin);
  f.field("disabled", row.disabled);
  f.field("created_at", row.created_at);
}

void fields(Fields& f, SessionRow& row) {
  f.field("id", row.id);
  f.field("token_hash", row.token_hash);
  f.field("user_id", row.user_id);
  f.field("created_at", row.created_at);
  f.field("last_used_at", row.last_used_at);
  f.field("expires_at", row.expires_at);
  f.field("peer", row.peer);
}

void fields(Fields& f, KeyRow& row) {
  f.field("id", row.id);
  f.field("token_hash", row.token_hash);
  f.field("user_id", row.user_id);
  f.field("name", row.name);
  f.field("hint", row.hint);
  f.field("created_at", row.created_at);
  f.field("last_used_at", row.last_used_at);
  f.field("expires_at", row.expires_at);
}

void fields(Fields& f, AuditRow& row) {
  f.field("id", row.id);
  f.field("happened_at", row.happened_at);
  f.field("user_id", row.user_id);
  f.field("user_name", row.user_name);
  f.field("peer", row.peer);
  f.field("action", row.action);
  f.field("object_kind", row.object_kind);
  f.field("object_id", row.object_id);
  f.field("detail", row.detail);
}

std::string name_key(std::string_view user_name) {
  std::string key(user_name);
  std::transform(key.begin(), key.end(), key.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return key;
}

std::optional<UserRow> user(db::Transaction& tx, std::string_view id) {
  return db::select_one<UserRow>(tx, "SELECT * FROM users WHERE id = $1", {text(id)});
}

std::optional<UserRow> user_named(db::Transaction& tx, std::string_view user_name) {
  return db::select_one<UserRow>(tx, "SELECT * FROM users WHERE name_key = $1", {name_key(user_name)});
}

std::optional<UserRow> user_created_by(db::Transaction& tx, std::string_view creation_id) {
  return db::select_one<UserRow>(tx, "SELECT * FROM users WHERE creation_id = $1", {text(creation_id)});
}

std::vector<UserRow> users(db::Transaction& tx, std::string_view before, std::int64_t limit) {
  std::int64_t number = std::numeric_limits<std::int64_t>::max();
  if (!before.empty()) std::from_chars(before.data(), before.data() + before.size(), number);
  return db::select<UserRow>(tx, "SELECT * FROM users WHERE number < $1 ORDER BY number DESC LIMIT $2",
                             {number, limit});
}

bool any_user(db::Transaction& tx) {
  return !tx.query("SELECT id FROM users LIMIT 1").empty();
}

void insert_user(db::Transaction& tx, UserRow& row) {
  const db::Rows next =
      tx.query("UPDATE counters SET value = value + 1 WHERE name = 'users' RETURNING value");
  row.number = next.integer(0, 0);
  row.id = std::to_string(row.number);
  db::insert(tx, "users", row);
}

User UserRow::user() const {
  return {id, user_name, admin, disabled, created_at};
}

void update_user(db::Transaction& tx, const UserRow& row) {
  db::update(tx, "users", row);
}

void delete_user(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM sessions WHERE user_id = $1", {text(id)});
  tx.execute("DELETE FROM api_keys WHERE user_id = $1", {text(id)});
  tx.execute("DELETE FROM users WHERE id = $1", {text(id)});
}

std::int64_t enabled_admins(db::Transaction& tx) {
  tx.execute("UPDATE counters SET value = value WHERE name = 'users'");
  return tx.query("SELECT count(*) AS n FROM users WHERE admin = 1 AND disabled = 0").integer(0, 0);
}

std::optional<SessionRow> session(db::Transaction& tx, std::string_view token_hash) {
  return db::select_one<SessionRow>(tx, "SELECT * FROM sessions WHERE token_hash = $1", {text(token_hash)});
}

void insert_session(db::Transaction& tx, const SessionRow& row) {
  db::insert(tx, "sessions", row);
}

void touch_session(db::Transaction& tx, std::string_view id, Time now) {
  tx.execute("UPDATE sessions SET last_used_at = $2 WHERE id = $1", {text(id), milliseconds(now)});
}

std::int64_t delete_session(db::Transaction& tx, std::string_view token_hash) {
  return tx.execute("DELETE FROM sessions WHERE token_hash = $1", {text(token_hash)});
}

void delete_sessions(db::Transaction& tx, std::string_view user_id, std::string_view but) {
  tx.execute("DELETE FROM sessions WHERE user_id = $1 AND token_hash <> $2", {text(user_id), text(but)});
}

void trim_sessions(db::Transaction& tx, std::string_view user_id, std::int64_t keep, Time now) {
  tx.execute("DELETE FROM sessions WHERE expires_at < $1", {milliseconds(now)});
  tx.execute(
      "DELETE FROM sessions WHERE user_id = $1 AND id NOT IN "
      "(SELECT id FROM sessions WHERE user_id = $1 ORDER BY id DESC LIMIT $2)",
      {text(user_id), keep});
}

std::optional<KeyRow> key_with_hash(db::Transaction& tx, std::string_view token_hash) {
  return db::select_one<KeyRow>(tx, "SELECT * FROM api_keys WHERE token_hash = $1", {text(token_hash)});
}

std::optional<KeyRow> key(db::Transaction& tx, std::string_view id) {
  return db::select_one<KeyRow>(tx, "SELECT * FROM api_keys WHERE id = $1", {text(id)});
}

std::vector<KeyRow> keys(db::Transaction& tx, std::string_view user_id, std::string_view before,
                         std::int64_t limit) {
  return db::select<KeyRow>(tx,
                            "SELECT * FROM api_keys WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                            {text(user_id), text(before.empty() ? "~" : before), limit});
}

std::int64_t count_keys(db::Transaction& tx, std::string_view user_id) {
  return tx.query("SELECT count(*) AS n FROM api_keys WHERE user_id = $1", {text(user_id)}).integer(0, 0);
}

void insert_key(db::Transaction& tx, const KeyRow& row) {
  db::insert(tx, "api_keys", row);
}

void update_key(db::Transaction& tx, const KeyRow& row) {
  db::update(tx, "api_keys", row);
}

void touch_key(db::Transaction& tx, std::string_view id, Time now) {
  tx.execute("UPDATE api_keys SET last_used_at = $2 WHERE id = $1", {text(id), milliseconds(now)});
}

void delete_key(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM api_keys WHERE id = $1", {text(id)});
}

std::vector<AuditRow> audit(db::Transaction& tx, const AuditFilter& filter, std::string_view before,
                            std::int64_t limit) {
  std::string sql = "SELECT * FROM audit WHERE id < $1";
  std::vector<db::Value> args{text(before.empty() ? "~" : before)};
  auto narrow = [&](std::string_view column, const std::string& value) {
    if (value.empty()) return;
    args.emplace_back(value);
    sql += fmt::format(" AND {} = ${}", column, args.size());
  };
  narrow("user_id", filter.user_id);
  narrow("action", filter.action);
  narrow("object_kind", filter.object_kind);
  narrow("object_id", filter.object_id);
  args.emplace_back(limit);
  sql += fmt::format(" ORDER BY id DESC LIMIT ${}", args.size());
  return db::select<AuditRow>(tx, sql, std::move(args));
}

std::int64_t drop_audit(db::Transaction& tx, Time before, std::int64_t limit) {
  return tx.execute(kDropAudit, {before, limit});  // ids sort by time: the oldest are found by their key
}

}  // namespace lathe::accounts::store
