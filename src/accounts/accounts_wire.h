#pragma once

#include <optional>
#include <string>

#include "base/fields.h"
#include "http/slice.h"

/// What the accounts' requests and answers look like.
namespace lathe::accounts::wire {

inline constexpr std::size_t kShortestPassword = 8;
inline constexpr std::size_t kLongestPassword = 256;

inline void new_password(Fields& f, std::string_view name, std::string& password, bool required) {
  f.field(name, password,
          {.doc = "8 to 256 characters", .required = required, .max_length = kLongestPassword});
  if (!password.empty() && password.size() < kShortestPassword)
    f.refuse(name, {"至少需要 8 个字符", "must have at least 8 characters"});
}

struct LogIn {
  std::string user_name, password;
};
inline void fields(Fields& f, LogIn& in) {
  f.field("userName", in.user_name, {.required = true, .max_length = 64});
  f.field("password", in.password, {.required = true, .max_length = kLongestPassword});
}

struct Who {
  std::string id, user_name, role;
};
inline void fields(Fields& f, Who& who) {
  f.field("id", who.id);
  f.field("userName", who.user_name);
  f.field("role", who.role, {.one_of = "user|admin"});
}

struct LoggedIn {
  std::string token;
  Time expires_at{};
  Who user;
};
inline void fields(Fields& f, LoggedIn& out) {
  f.field("token", out.token, {.doc = "For `Authorization: Bearer`; shown here only"});
  f.field("expiresAt", out.expires_at, {.doc = "When the session ends if it is not used"});
  f.field("user", out.user);
}

struct ChangePassword {
  std::string current_password, password;
};
inline void fields(Fields& f, ChangePassword& in) {
  f.field("currentPassword", in.current_password, {.required = true, .max_length = kLongestPassword});
  new_password(f, "password", in.password, true);
}

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct UserOut {
  std::string id, user_name, role;
  bool disabled = false;
  Time created_at{};
};
inline void fields(Fields& f, UserOut& user) {
  f.field("id", user.id);
  f.field("userName", user.user_name);
  f.field("role", user.role, {.one_of = "user|admin"});
  f.field("disabled", user.disabled);
  f.field("createdAt", user.created_at);
}

struct NewUser {
  std::string user_name, password;
  std::string role = "user";
};
inline void fields(Fields& f, NewUser& in) {
  f.field("userName", in.user_name,
          {.doc = "Unique; names that differ in case only are one",
           .required = true,
           .max_length = 64,
           .form = Form::name});
  if (in.user_name.find_first_of(":/ ") != std::string::npos)
    f.refuse("userName", {"不能含有空格、“:” 或 “/”", "must not contain a space, ':' or '/'"});
  new_password(f, "password", in.password, true);
  f.field("role", in.role, {.one_of = "user|admin"});
}

struct UserPatch {
  std::string id;
  std::string password;
  std::optional<std::string> role;
  std::optional<bool> disabled;
};
inline void fields(Fields& f, UserPatch& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
  new_password(f, "password", in.password, false);
  f.field("role", in.role, {.one_of = "user|admin"});
  f.field("disabled", in.disabled, {.doc = "A disabled user's sessions and API keys are refused at once"});
}

struct NewKey {
  std::string name;
  std::optional<Time> expires_at;
};
inline void fields(Fields& f, NewKey& in) {
  f.field("name", in.name,
          {.doc = "What it is for", .required = true, .max_length = 100, .form = Form::line});
  f.field("expiresAt", in.expires_at, {.doc = "Absent: never"});
}

struct KeyOut {
  std::string id, name, hint;
  Time created_at{};
  std::optional<Time> last_used_at, expires_at;
};
inline void fields(Fields& f, KeyOut& key) {
  f.field("id", key.id);
  f.field("name", key.name);
  f.field("hint", key.hint, {.doc = "How the key begins"});
  f.field("createdAt", key.created_at);
  f.field("lastUsedAt", key.last_used_at, {.doc = "To the minute"});
  f.field("expiresAt", key.expires_at);
}

struct CreatedKey : KeyOut {
  std::string key;
};
inline void fields(Fields& f, CreatedKey& out) {
  fields(f, static_cast<KeyOut&>(out));
  f.field("key", out.key, {.doc = "For `Authorization: Bearer`; shown here only"});
}

struct AuditQuery : http::SliceQuery {
  std::string user_id, action, object_kind, object_id;
};
inline void fields(Fields& f, AuditQuery& q) {
  fields(f, static_cast<http::SliceQuery&>(q));
  f.field("userId", q.user_id, {.form = Form::id});
  f.field("action", q.action, {.doc = "Such as `user.create`", .form = Form::id});
  f.field("objectKind", q.object_kind, {.form = Form::id});
  f.field("objectId", q.object_id, {.form = Form::line});
}

struct AuditOut {
  std::string id;
  Time time{};
  std::string user_id, user_name, peer, action, object_kind, object_id, detail;
};
inline void fields(Fields& f, AuditOut& out) {
  f.field("id", out.id);
  f.field("time", out.time);
  f.field("userId", out.user_id);
  f.field("userName", out.user_name);
  f.field("peer", out.peer, {.doc = "The address the request came from"});
  f.field("action", out.action);
  f.field("objectKind", out.object_kind);
  f.field("objectId", out.object_id);
  f.field("detail", out.detail);
}

}  // namespace lathe::accounts::wire
