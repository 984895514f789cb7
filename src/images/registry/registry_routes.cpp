#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>

#include "base/log.h"
#include "http/url.h"
#include "images/contents_store.h"
#include "images/oci.h"
#include "images/reference.h"
#include "images/registry/problem.h"
#include "images/registry/registry.h"
#include "images/registry/registry_store.h"

namespace lathe::images::registry {

namespace {

constexpr std::string_view kService = "lathe";
constexpr std::int64_t kMostListed = 10'000;
constexpr std::uint64_t kMostStreamed = 1ULL << 42;

http::Response json_answer(boost::json::object body) {
  return http::Response::json(200, json::print(std::move(body)));
}

std::string_view action_of(Need need) {
  return need == Need::pull ? "pull" : need == Need::remove ? "delete" : "push";
}

/// What a client without the right token is told to ask for.
std::string scope_for(Need need, const Place& place) {
  if (place.target == Target::catalog) return "registry:catalog:*";
  if (place.name.empty()) return {};
  return "repository:" + place.name + ":" + (need == Need::push ? "pull,push" : std::string(action_of(need)));
}

/// `n` and `last` of a list.
struct PageQuery {
  std::int64_t size = kMostListed;
  std::string last;
};
Result<PageQuery> page_query(const http::Request& request) {
  PageQuery out;
  out.last = request.query_value("last").value_or("");
  const auto n = request.query_value("n");
  if (!n) return out;
  const auto [end, error] = std::from_chars(n->data(), n->data() + n->size(), out.size);
  if (error != std::errc() || end != n->data() + n->size() || out.size < 0)
    return invalid_field("n", {"应为非负整数", "must be a whole number, not negative"});
  out.size = std::min(out.size, kMostListed);
  return out;
}

/// Cuts a list that was read one longer than the page, and says where the next page begins.
void cut_page(std::vector<std::string>& list, const PageQuery& page, std::string_view path,
              http::Response& response) {
  if (static_cast<std::int64_t>(list.size()) <= page.size) return;
  list.resize(static_cast<std::size_t>(page.size));
  if (list.empty()) return;
  response.headers.set("Link", "<" + std::string(path) + "?n=" + std::to_string(page.size) +
                                   "&last=" + http::percent_encode(list.back()) + ">; rel=\"next\"");
}

boost::json::array to_array(const std::vector<std::string>& list) {
  boost::json::array out;
  for (const auto& text : list) out.emplace_back(text);
  return out;
}

}  // namespace

struct Registry::Operation {
  http::Method method;
  Target target;
  Need need;
  std::string_view id;
  bool streams;
  Run run;
};

const Registry::Operation Registry::kOperations[] = {
    {http::Method::get, Target::base, Need::account, "registryBase", false, &Registry::base},
    {http::Method::get, Target::token, Need::nothing, "registryToken", false, &Registry::token},
    {http::Method::post, Target::token, Need::nothing, "registryPostToken", false, &Registry::token},
    {http::Method::get, Target::catalog, Need::account, "registryCatalog", false, &Registry::catalog},
    {http::Method::get, Target::tags, Need::pull, "registryTags", false, &Registry::tags},
    {http::Method::get, Target::referrers, Need::pull, "registryReferrers", false, &Registry::referrers},
    {http::Method::get, Target::manifest, Need::pull, "registryGetManifest", false, &Registry::get_manifest},
    {http::Method::put, Target::manifest, Need::push, "registryPutManifest", false, &Registry::put_manifest},
    {http::Method::del, Target::manifest, Need::remove, "registryDeleteManifest", false,
     &Registry::delete_manifest},
    {http::Method::get, Target::blob, Need::pull, "registryGetBlob", false, &Registry::get_blob},
    {http::Method::del, Target::blob, Need::remove, "registryDeleteBlob", false, &Registry::delete_blob},
    {http::Method::post, Target::uploads, Need::push, "registryBeginUpload", true, &Registry::begin_upload},
    {http::Method::get, Target::upload, Need::push, "registryGetUpload", false, &Registry::show_upload},
    {http::Method::patch, Target::upload, Need::push, "registryPatchUpload", true, &Registry::patch_upload},
    {http::Method::put, Target::upload, Need::push, "registryPutUpload", true, &Registry::put_upload},
    {http::Method::del, Target::upload, Need::push, "registryCancelUpload", false, &Registry::cancel_upload},
};

Result<std::unique_ptr<http::Handler>> Registry::make(const Parts& parts, RegistryOptions options) {
  auto authority = TRY(Authority::open(parts.db, parts.accounts, parts.clock));
  return std::unique_ptr<http::Handler>(new Registry(parts, std::move(options), std::move(authority)));
}

const Registry::Operation* Registry::find(http::Method method, Target target) {
  if (method == http::Method::head) method = http::Method::get;
  for (const Operation& operation : kOperations)
    if (operation.method == method && operation.target == target) return &operation;
  return nullptr;
}

http::Response Registry::no_operation(const http::Request& request, Target target) {
  std::string allowed;
  for (const Operation& operation : kOperations)
    if (operation.target == target)
      allowed += (allowed.empty() ? "" : ", ") + std::string(http::name(operation.method));
  http::Response response = problem(
      request,
      {Code::method_not_allowed, {"此地址只接受 " + allowed, "this address takes " + allowed + " only"}});
  response.headers.set("Allow", allowed);
  return response;
}

http::Handler::Intake Registry::intake(const http::Request& head) {
  Intake out;
  const auto place = parse_place(head.path);
  const Operation* operation = place ? find(head.method, place->target) : nullptr;
  if (!operation) {
    out.refuse = place ? no_operation(head, place->target)
                       : problem(head, {Code::not_found, {"没有这个地址", "there is no such address"}});
    return out;
  }
  out.stream = operation->streams;
  out.max_body = out.stream ? kMostStreamed : oci::kMaxDocument;
  return out;
}

http::Response Registry::handle(http::Request& request) {
  const auto start = std::chrono::steady_clock::now();
  const auto place = parse_place(request.path);
  const Operation* operation = place ? find(request.method, place->target) : nullptr;
  if (!operation) return *intake(request).refuse;
  http::Response response = run(*operation, request, *place);
  response.headers.set("Docker-Distribution-Api-Version", "registry/2.0");
  if (options_.observe) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    options_.observe(operation->id, response.status, took.count());
  }
  return response;
}

http::Response Registry::run(const Operation& operation, http::Request& request, const Place& place) {
  Visit visit;
  auto refused = admit(operation, request, place, visit);
  if (refused && *refused) return *std::move(*refused);
  auto answer = refused ? (this->*operation.run)(request, place, visit) : Answer(std::move(refused).error());
  if (answer) return *std::move(answer);
  const Error& error = answer.error();
  if (http_status(error.code) >= 500)
    log::error("request {} {} failed: {}", request.id, request.path, error.describe(Language::en));
  return problem(request, error);
}

http::Response Registry::failure(const http::Request& request, const Error& error, int status) {
  http::Response response = problem(request, error);
  if (status != 0) response.status = status;
  return response;
}

Result<std::optional<http::Response>> Registry::admit(const Operation& operation,
                                                      const http::Request& request, const Place& place,
                                                      Visit& visit) {
  std::optional<http::Response> refused;
  if (operation.need == Need::nothing) return refused;
  const std::string scope = scope_for(operation.need, place);
  auto caller = authority_->caller(request);
  if (!caller && caller.error().code == Code::unauthenticated) {
    const bool given = request.headers.has("authorization");
    refused = challenge(request, caller.error(), scope, given ? "invalid_token" : "");
    return refused;
  }
  visit.caller = TRY(std::move(caller));
  const bool allowed = scope.empty() || (place.name.empty() ? visit.caller.within("registry", "catalog", "*")
                                                            : visit.caller.within("repository", place.name,
                                                                                  action_of(operation.need)));
  if (!allowed) {
    const Error narrow{Code::unauthenticated, {"令牌不包含所需的权限", "the token was not issued for this"}};
    refused = challenge(request, narrow, scope, "insufficient_scope");
    return refused;
  }
  if (!place.name.empty())
    visit.repository = TRY(repository(place.name, visit.caller.who, operation.need != Need::pull));
  return refused;
}

Result<Repository> Registry::repository(std::string_view path, const http::Identity& who, bool to_write) {
  if (auto wrong = wrong_name(path)) return about("name", {Code::invalid_argument, *wrong});
  const auto denied =
      Error{Code::permission_denied,
            {"只能推送到自己的命名空间：用户名/镜像名", "may push to USER/IMAGE of your own only"}};
  const auto slash = path.find('/');
  if (slash == std::string_view::npos) return to_write ? denied : no_repository(path);
  const std::string_view space = path.substr(0, slash);
  auto owner = p_.accounts.user_named(space);
  if (!owner && space.starts_with("id-")) owner = p_.accounts.user(space.substr(3));
  // Whose spaces there are is nobody's business: no answer depends on it.
  if (!owner) return to_write ? denied : no_repository(path);
  Repository out{std::string(path), owner->id, std::string(path.substr(slash + 1)), {}, false};
  out.writable = who.admin || who.user_id == owner->id;
  if (to_write && !out.writable) return denied;
  TRY(p_.db.read([&](db::Transaction& tx) -> Result<void> {
    out.image = store::own_image_named(tx, out.owner_id, out.name);
    return {};
  }));
  if (!out.writable && (!out.image || !out.image->is_public)) return no_repository(path);
  return out;
}

std::string Registry::repository_path(std::string_view user_id, std::string_view name) {
  std::string space = p_.accounts.name_of(user_id);
  for (char& c : space)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (wrong_name(space)) space = "id-" + std::string(user_id);
  return space + "/" + std::string(name);
}

std::string Registry::base_url(const http::Request& request) const {
  if (!options_.public_url.empty()) {
    std::string out = options_.public_url;
    while (out.ends_with('/')) out.pop_back();
    return out;
  }
  return (options_.tls ? "https://" : "http://") + std::string(request.headers.get("host"));
}

http::Response Registry::challenge(const http::Request& request, const Error& error, std::string_view scope,
                                   std::string_view why) {
  http::Response response = problem(request, error);
  std::string text =
      "Bearer realm=\"" + base_url(request) + "/v2/token\",service=\"" + std::string(kService) + "\"";
  if (!scope.empty()) text += ",scope=\"" + std::string(scope) + "\"";
  if (!why.empty()) text += ",error=\"" + std::string(why) + "\"";
  response.headers.set("WWW-Authenticate", std::move(text));
  return response;
}

Registry::Answer Registry::base(http::Request&, const Place&, const Visit&) {
  return json_answer({});
}

Registry::Answer Registry::token(http::Request& request, const Place&, const Visit&) {
  http::Pairs form;
  if (request.method == http::Method::post) form = TRY(http::parse_form(request.body));
  const auto& given = request.method == http::Method::post ? form : request.query;
  std::vector<Scope> scopes;
  std::string user_name, password, grant;
  for (const auto& [name, value] : given) {
    if (name == "username") user_name = value;
    if (name == "password") password = value;
    if (name == "grant_type") grant = value;
    if (name != "scope") continue;
    // Several may be given, as parameters of their own or separated by spaces.
    for (std::string_view rest = value; !rest.empty();) {
      const auto space = std::min(rest.find(' '), rest.size());
      if (auto scope = Scope::parse(rest.substr(0, space))) scopes.push_back(*std::move(scope));
      rest.remove_prefix(std::min(space + 1, rest.size()));
    }
  }
  Result<http::Identity> who = http::Identity{};
  if (request.method == http::Method::post) {
    if (grant != "password")
      return Error{Code::invalid_argument,
                   {"仅支持 grant_type=password", "only grant_type=password is supported"}};
    who = authority_->check(user_name, password, request.peer);
  } else {
    auto caller = authority_->caller(request);
    who = caller ? Result<http::Identity>(std::move(caller->who)) : Result<http::Identity>(caller.error());
    // A token must not make itself a wider one.
    if (caller && caller->scopes)
      who = Error{Code::unauthenticated, {"需要用户名和密码", "needs a user name and a password"}};
  }
  if (!who) {
    http::Response refused = problem(request, who.error());
    if (refused.status == 401)
      refused.headers.set("WWW-Authenticate", "Basic realm=\"" + std::string(kService) + "\"");
    return refused;
  }
  const auto issued = authority_->issue(*who, scopes);
  if (!issued) return problem(request, issued.error());
  const std::string& token = *issued;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(Authority::kTokenLifetime).count();
  http::Response response = json_answer({{"token", token},
                                         {"access_token", token},
                                         {"expires_in", seconds},
                                         {"issued_at", format_iso(p_.clock.now())}});
  response.headers.set("Cache-Control", "no-store");
  return response;
}

Registry::Answer Registry::catalog(http::Request& request, const Place&, const Visit& visit) {
  const PageQuery page = TRY(page_query(request));
  const auto& who = visit.caller.who;
  const auto rows = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::vector<store::RepositoryRow>> {
    return store::repositories(tx, who.admin ? std::nullopt : std::optional(who.user_id));
  }));
  std::vector<std::string> names;
  for (const auto& row : rows)
    if (std::string path = repository_path(row.user_id, row.name); path > page.last)
      names.push_back(std::move(path));
  std::sort(names.begin(), names.end());
  http::Response response;
  cut_page(names, page, request.path, response);
  http::Response body = json_answer({{"repositories", to_array(names)}});
  if (response.headers.has("Link")) body.headers.set("Link", std::string(response.headers.get("Link")));
  return body;
}

Registry::Answer Registry::tags(http::Request& request, const Place&, const Visit& visit) {
  const Repository& repository = visit.repository;
  const PageQuery page = TRY(page_query(request));
  if (!repository.image) return no_repository(repository.path);
  auto names = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::vector<std::string>> {
    return store::tag_names(tx, repository.image->id, page.last, page.size + 1);
  }));
  http::Response response;
  cut_page(names, page, request.path, response);
  http::Response body = json_answer({{"name", repository.path}, {"tags", to_array(names)}});
  if (response.headers.has("Link")) body.headers.set("Link", std::string(response.headers.get("Link")));
  return body;
}

Registry::Answer Registry::referrers(http::Request& request, const Place& place, const Visit& visit) {
  if (!is_digest(place.reference)) return wrong_digest(place.reference);
  const std::string filter(request.query_value("artifactType").value_or(""));
  std::vector<store::ReferrerRow> rows;
  if (visit.repository.image)
    rows = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::vector<store::ReferrerRow>> {
      return store::referrers(tx, visit.repository.image->id, place.reference, filter);
    }));
  boost::json::array manifests;
  for (const auto& row : rows) {
    boost::json::object one{{"mediaType", row.media_type}, {"digest", row.digest}, {"size", row.size}};
    if (!row.artifact_type.empty()) one["artifactType"] = row.artifact_type;
    if (row.annotations.is_object()) one["annotations"] = row.annotations;
    manifests.push_back(std::move(one));
  }
  boost::json::object index{{"schemaVersion", 2}, {"mediaType", oci::kIndex}};
  index["manifests"] = std::move(manifests);
  http::Response response = json_answer(std::move(index));
  response.headers.set("Content-Type", std::string(oci::kIndex));
  if (!filter.empty()) response.headers.set("OCI-Filters-Applied", "artifactType");
  return response;
}

}  // namespace lathe::images::registry
