#include "http/api.h"

#include <openssl/evp.h>

#include <boost/json.hpp>
#include <chrono>
#include <stdexcept>
#include <unordered_map>

#include "base/log.h"
#include "http/openapi.h"
#include "http/url.h"

namespace lathe::http {

namespace bj = boost::json;

namespace {

struct Entry {
  Route route;
  Json input, output;
  bool raw = false;
  Api::RawOptions options;
  std::function<Result<std::string>(Call&, const Json&, const Envelope&)> run;
  std::function<Result<Response>(Call&)> run_raw;
};

using Captures = std::vector<std::pair<std::string, std::string>>;

std::string_view next_segment(std::string_view& path) {
  path.remove_prefix(1);
  const auto slash = std::min(path.find('/'), path.size());
  const auto segment = path.substr(0, slash);
  path.remove_prefix(slash);
  return segment;
}

/// Matches a decoded path against `/a/{b}/{rest...}`.
bool match(std::string_view pattern, std::string_view path, Captures& captures) {
  captures.clear();
  while (!pattern.empty() && !path.empty()) {
    const auto rest = path;
    const auto want = next_segment(pattern);
    const auto got = next_segment(path);
    if (!want.starts_with('{')) {
      if (want != got) return false;
    } else if (want.ends_with("...}")) {
      captures.emplace_back(want.substr(1, want.size() - 5), rest.substr(1));
      return true;
    } else {
      if (got.empty()) return false;
      captures.emplace_back(want.substr(1, want.size() - 2), got);
    }
  }
  return pattern.empty() && path.empty();
}

bool accepts_json_body(Method method) {
  return method == Method::post || method == Method::put || method == Method::patch || method == Method::del;
}

/// All the fields of a call in one object: the body's, then the query's, then the path's, the later winning
/// only where it must (the path).
Result<Json> gather(const Request& request) {
  bj::object input;
  if (accepts_json_body(request.method) && request.body.find_first_not_of(" \t\r\n") != std::string::npos) {
    const bool looks_like_json = request.body[request.body.find_first_not_of(" \t\r\n")] == '{';
    const bool form = request.headers.get("content-type").starts_with("application/x-www-form-urlencoded");
    if (form && !looks_like_json) {
      for (auto& [name, value] : TRY(parse_form(request.body))) input.emplace(name, std::move(value));
    } else {
      Json body = TRY(json::parse(request.body));
      if (!body.is_object()) return invalid_field("body", {"应为 JSON 对象", "must be a JSON object"});
      input = std::move(body.get_object());
    }
  }
  for (const auto& [name, value] : request.query) input.emplace(name, value);
  for (const auto& [name, value] : request.captures) input.insert_or_assign(name, value);
  return Json(std::move(input));
}

std::string digest_of(const Request& request) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  const std::string text = request.raw_target + "\n" + request.body;
  EVP_Digest(text.data(), text.size(), hash, &size, EVP_sha256(), nullptr);
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += kHex[hash[i] >> 4];
    out += kHex[hash[i] & 15];
  }
  return out;
}

}  // namespace

struct Api::State {
  Hooks hooks;
  std::vector<std::unique_ptr<Entry>> entries;
  std::vector<Route> routes;
  std::unordered_map<std::string, std::vector<const Entry*>> exact;
  std::vector<const Entry*> patterns;

  void add(Entry made) {
    for (const auto& other : entries)
      if (other->route.id == made.route.id)
        throw std::logic_error("two routes are called " + std::string(made.route.id));
    auto owned = std::make_unique<Entry>(std::move(made));
    const std::string& path = owned->route.path;
    if (path.find('{') == std::string::npos) {
      exact[path].push_back(owned.get());
    } else {
      patterns.push_back(owned.get());
    }
    routes.push_back(owned->route);
    entries.push_back(std::move(owned));
  }

  struct Found {
    const Entry* entry = nullptr;
    Captures captures;
    std::string allowed;  ///< the methods there are, where the path exists and the method does not
  };

  void find_at(Method method, const std::string& path, Found& found) const {
    const Method wanted = method == Method::head ? Method::get : method;
    auto consider = [&](const Entry* entry, Captures captures) {
      if (entry->route.method == wanted) {
        if (!found.entry) found = {entry, std::move(captures), {}};
      } else if (!found.entry) {
        found.allowed += (found.allowed.empty() ? "" : ", ") + std::string(name(entry->route.method));
      }
    };
    if (const auto it = exact.find(path); it != exact.end())
      for (const Entry* entry : it->second) consider(entry, {});
    if (found.entry) return;
    Captures captures;
    for (const Entry* entry : patterns)
      if (match(entry->route.path, path, captures)) consider(entry, captures);
  }

  /// Documented paths answer with and without /api; the project's own only as they are.
  Found find(Method method, const std::string& path) const {
    Found found;
    find_at(method, path, found);
    if (found.entry) return found;
    if (path.starts_with("/api/")) {
      if (!path.starts_with("/api/v1/")) find_at(method, path.substr(4), found);
    } else {
      find_at(method, "/api" + path, found);
    }
    if (found.entry && found.entry->route.section.empty()) found = {};
    return found;
  }

  Result<Identity> admit(const Entry& entry, const Request& request) const {
    if (!hooks.authenticate) return Identity{};
    auto who = hooks.authenticate(request);
    if (entry.route.access == Access::open) return who.ok() ? std::move(who) : Result<Identity>(Identity{});
    Identity caller = TRY(std::move(who));
    if (caller.user_id.empty())
      return Error{
          Code::unauthenticated,
          {"未登录：请提供 Authorization: Bearer 令牌", "not logged in: send Authorization: Bearer TOKEN"}};
    if (entry.route.access == Access::admin && !caller.admin)
      return Error{Code::permission_denied, {"仅管理员可以执行此操作", "for administrators only"}};
    return caller;
  }

  Result<Response> run(const Found& found, Request& request) const {
    const Entry& entry = *found.entry;
    request.captures = found.captures;
    Call call{request, TRY(admit(entry, request)), [this] { return hooks.ids->next(); }};
    const std::string_view key = request.headers.get("idempotency-key");
    if (!key.empty() && request.method == Method::post && hooks.reserve_id && !entry.options.stream) {
      std::string reserved = TRY(hooks.reserve_id(call.caller, key, entry.route.id, digest_of(request)));
      call.new_id = [this, reserved = std::move(reserved), used = false]() mutable {
        return std::exchange(used, true) ? hooks.ids->next() : reserved;
      };
    }
    if (entry.raw) return entry.run_raw(call);
    const Json input = TRY(gather(request));
    std::string payload = TRY(entry.run(call, input, *entry.route.envelope));
    if (entry.output.is_null()) payload.clear();
    return success_response(*entry.route.envelope, entry.route.success_status, entry.route.success_message,
                            std::move(payload));
  }

  Response refuse(const Found& found, const Request& request) const {
    const Envelope& envelope = envelope_for(request.path);
    if (found.allowed.empty())
      return error_response(
          envelope, request,
          {Code::not_found, {"没有这个地址：" + request.path, "no such address: " + request.path}});
    Response response =
        error_response(envelope, request,
                       {Code::method_not_allowed,
                        {"此地址只接受 " + found.allowed, "this address takes " + found.allowed + " only"}});
    response.headers.set("Allow", found.allowed);
    return response;
  }
};

Api::Api(Hooks hooks) : state_(std::make_unique<State>()) {
  state_->hooks = std::move(hooks);
}
Api::~Api() = default;

void Api::add_json(Route route, Json in, Json out, bool no_payload, Run run) {
  Entry entry{std::move(route), std::move(in), no_payload ? Json(nullptr) : std::move(out)};
  entry.run = std::move(run);
  state_->add(std::move(entry));
}

void Api::add_raw(Route route, RawOptions options, std::function<Result<Response>(Call&)> handle) {
  Entry entry{std::move(route), options.parameters, nullptr, true, options};
  entry.run_raw = std::move(handle);
  state_->add(std::move(entry));
}

Handler::Intake Api::intake(const Request& head) {
  const auto found = state_->find(head.method, head.path);
  Intake intake;
  if (!found.entry) {
    intake.refuse = state_->refuse(found, head);
    return intake;
  }
  intake.stream = found.entry->options.stream;
  intake.max_body = found.entry->route.max_body;
  if (!intake.stream) return intake;
  // A body that may be many gigabytes is not let in before its sender is known.
  if (auto caller = state_->admit(*found.entry, head); !caller.ok())
    intake.refuse = error_response(*found.entry->route.envelope, head, caller.error());
  return intake;
}

Response Api::handle(Request& request) {
  const auto start = std::chrono::steady_clock::now();
  const auto found = state_->find(request.method, request.path);
  if (!found.entry) return state_->refuse(found, request);
  auto outcome = state_->run(found, request);
  if (!outcome.ok() && http_status(outcome.error().code) >= 500)
    log::error("request {} {} failed: {}", request.id, request.path, outcome.error().describe(Language::en));
  Response response = outcome.ok() ? std::move(*outcome)
                                   : error_response(*found.entry->route.envelope, request, outcome.error());
  if (state_->hooks.observe) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    state_->hooks.observe(found.entry->route.id, response.status, took.count());
  }
  return response;
}

Response Api::failure(const Request& request, const Error& error, int status) {
  const auto found = state_->find(request.method, request.path);
  return error_response(found.entry ? *found.entry->route.envelope : envelope_for(request.path), request,
                        error, status);
}

const std::vector<Route>& Api::routes() const {
  return state_->routes;
}

Json Api::openapi() const {
  std::vector<Documented> documented;
  for (const auto& entry : state_->entries)
    documented.push_back({&entry->route, entry->input, entry->output, entry->raw, entry->options.request_type,
                          entry->options.answer_type});
  return make_openapi(documented);
}

}  // namespace lathe::http
