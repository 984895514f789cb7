#include "accounts/accounts_service.h"

namespace lathe::accounts {

namespace {

using http::Access;
using http::Call;
using http::Method;
using http::Slice;
using http::SliceQuery;

std::string role(bool admin) {
  return admin ? "admin" : "user";
}

wire::Who who(const http::Identity& identity) {
  return {identity.user_id, identity.user_name, role(identity.admin)};
}

wire::UserOut out(const User& user) {
  return {user.id, user.user_name, role(user.admin), user.disabled, user.created_at};
}

wire::KeyOut out(const store::KeyRow& row) {
  return {row.id, row.name, row.hint, row.created_at, row.last_used_at, row.expires_at};
}

wire::AuditOut out(const store::AuditRow& row) {
  return {row.id,     row.happened_at, row.user_id,   row.user_name, row.peer,
          row.action, row.object_kind, row.object_id, row.detail};
}

/// The rows of a query with `limit()`, as a slice of what is shown of them.
template <class Shown, class Row, class Convert>
Slice<Shown> shown(const SliceQuery& query, const std::vector<Row>& rows, Convert convert) {
  std::vector<Shown> list;
  for (const auto& row : rows) list.push_back(convert(row));
  return http::slice(query, std::move(list), [](const Shown& last) { return last.id; });
}

void add_session_routes(http::Api& api, Service& service) {
  api.add<wire::LogIn, wire::LoggedIn>(
      {.method = Method::post,
       .path = "/api/v1/sessions",
       .access = Access::open,
       .id = "createSession",
       .tag = "accounts",
       .summary = "Log in",
       .success_status = 201},
      [&service](Call& call, const wire::LogIn& in) -> Result<wire::LoggedIn> {
        auto session = TRY(service.log_in(in, call.request.peer));
        return wire::LoggedIn{session.token,
                              session.expires_at,
                              {session.user.id, session.user.user_name, role(session.user.admin)}};
      });
  api.add<Nothing, Nothing>({.method = Method::del,
                             .path = "/api/v1/sessions/current",
                             .access = Access::user,
                             .id = "deleteCurrentSession",
                             .tag = "accounts",
                             .summary = "Log out",
                             .success_status = 204},
                            [&service](Call& call, Nothing) -> Result<Nothing> {
                              TRY(service.log_out(call));
                              return Nothing{};
                            });
  api.add<Nothing, wire::Who>({.method = Method::get,
                               .path = "/api/v1/me",
                               .access = Access::user,
                               .id = "getMe",
                               .tag = "accounts",
                               .summary = "Who the token belongs to"},
                              [](Call& call, Nothing) -> Result<wire::Who> { return who(call.caller); });
  api.add<wire::ChangePassword, Nothing>(
      {.method = Method::post,
       .path = "/api/v1/me/password",
       .access = Access::user,
       .id = "changePassword",
       .tag = "accounts",
       .summary = "Change one's own password; ends every other session",
       .success_status = 204},
      [&service](Call& call, const wire::ChangePassword& in) -> Result<Nothing> {
        TRY(service.change_password(call, in));
        return Nothing{};
      });
}

void add_key_routes(http::Api& api, Service& service) {
  api.add<SliceQuery, Slice<wire::KeyOut>>(
      {.method = Method::get,
       .path = "/api/v1/api-keys",
       .access = Access::user,
       .id = "listApiKeys",
       .tag = "accounts",
       .summary = "One's own API keys, newest first"},
      [&service](Call& call, const SliceQuery& query) -> Result<Slice<wire::KeyOut>> {
        const auto rows = TRY(service.keys(call.caller, query));
        return shown<wire::KeyOut>(query, rows, [](const auto& row) { return out(row); });
      });
  api.add<wire::NewKey, wire::CreatedKey>(
      {.method = Method::post,
       .path = "/api/v1/api-keys",
       .access = Access::user,
       .id = "createApiKey",
       .tag = "accounts",
       .summary = "Make an API key",
       .success_status = 201},
      [&service](Call& call, const wire::NewKey& in) -> Result<wire::CreatedKey> {
        auto key = TRY(service.create_key(call, in));
        return wire::CreatedKey{out(key.row), key.secret};
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = "/api/v1/api-keys/{id}",
                                .access = Access::user,
                                .id = "deleteApiKey",
                                .tag = "accounts",
                                .summary = "Revoke an API key",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.delete_key(call, in.id));
                                 return Nothing{};
                               });
}

void add_user_routes(http::Api& api, Service& service) {
  api.add<SliceQuery, Slice<wire::UserOut>>(
      {.method = Method::get,
       .path = "/api/v1/users",
       .access = Access::admin,
       .id = "listUsers",
       .tag = "users",
       .summary = "Users, newest first"},
      [&service](Call&, const SliceQuery& query) -> Result<Slice<wire::UserOut>> {
        const auto rows = TRY(service.users(query));
        return shown<wire::UserOut>(query, rows, [](const auto& row) { return out(row.user()); });
      });
  api.add<wire::NewUser, wire::UserOut>(
      {.method = Method::post,
       .path = "/api/v1/users",
       .access = Access::admin,
       .id = "createUser",
       .tag = "users",
       .summary = "Create a user",
       .success_status = 201},
      [&service](Call& call, const wire::NewUser& in) -> Result<wire::UserOut> {
        return out(TRY(service.create_user(call, in)));
      });
  api.add<wire::ById, wire::UserOut>({.method = Method::get,
                                      .path = "/api/v1/users/{id}",
                                      .access = Access::admin,
                                      .id = "getUser",
                                      .tag = "users",
                                      .summary = "Show a user"},
                                     [&service](Call&, const wire::ById& in) -> Result<wire::UserOut> {
                                       return out(TRY(service.user(in.id)));
                                     });
  api.add<wire::UserPatch, wire::UserOut>(
      {.method = Method::patch,
       .path = "/api/v1/users/{id}",
       .access = Access::admin,
       .id = "updateUser",
       .tag = "users",
       .summary = "Change a user's role or password, disable or enable them"},
      [&service](Call& call, const wire::UserPatch& in) -> Result<wire::UserOut> {
        return out(TRY(service.patch_user(call, in)));
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = "/api/v1/users/{id}",
                                .access = Access::admin,
                                .id = "deleteUser",
                                .tag = "users",
                                .summary = "Delete a user who has nothing left here",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.delete_user(call, in.id));
                                 return Nothing{};
                               });
}

}  // namespace

void Service::add_routes(http::Api& api) {
  add_session_routes(api, *this);
  add_key_routes(api, *this);
  add_user_routes(api, *this);
  api.add<wire::AuditQuery, Slice<wire::AuditOut>>(
      {.method = Method::get,
       .path = "/api/v1/audit",
       .access = Access::admin,
       .id = "listAudit",
       .tag = "accounts",
       .summary = "Who did what, newest first"},
      [this](Call&, const wire::AuditQuery& query) -> Result<Slice<wire::AuditOut>> {
        const auto rows = TRY(audit(query));
        return shown<wire::AuditOut>(query, rows, [](const auto& row) { return out(row); });
      });
}

}  // namespace lathe::accounts
