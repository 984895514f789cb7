#include "images/pull/remote.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/base64.h"
#include "base/json.h"
#include "base/text_form.h"
#include "http/credentials.h"
#include "http/url.h"
#include "images/blob_store.h"
#include "images/oci.h"

namespace lathe::images::pull {

namespace {

constexpr int kMostRedirects = 5;
constexpr std::size_t kMostExplanation = 16 << 10;
constexpr std::size_t kMostToken = 64 << 10;
constexpr std::size_t kShownExplanation = 200;

struct TokenAnswer {
  std::string token, access_token;
};
void fields(Fields& f, TokenAnswer& t) {
  f.field("token", t.token, {.max_length = kMostToken});
  f.field("access_token", t.access_token, {.max_length = kMostToken});
}

struct Complaint {
  std::string code, message;
};
void fields(Fields& f, Complaint& c) {
  f.field("code", c.code, {.max_length = kMostExplanation});
  f.field("message", c.message, {.max_length = kMostExplanation});
}
struct Complaints {
  std::vector<Complaint> errors;
};
void fields(Fields& f, Complaints& c) {
  f.field("errors", c.errors);
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/// `name="value"` of a challenge; "" if it has none.
std::string parameter(std::string_view challenge, std::string_view name) {
  const std::string key = std::string(name) + "=\"";
  for (auto at = challenge.find(key); at != std::string_view::npos; at = challenge.find(key, at + 1)) {
    if (at > 0 && challenge[at - 1] != ' ' && challenge[at - 1] != ',') continue;
    const auto begin = at + key.size();
    return std::string(challenge.substr(begin, challenge.find('"', begin) - begin));
  }
  return {};
}

std::optional<std::uint64_t> first_byte_of(std::string_view content_range) {
  if (!content_range.starts_with("bytes ")) return std::nullopt;
  content_range.remove_prefix(6);
  std::uint64_t out = 0;
  const auto [end, error] =
      std::from_chars(content_range.data(), content_range.data() + content_range.size(), out);
  if (error != std::errc{} || end == content_range.data() + content_range.size() || *end != '-')
    return std::nullopt;
  return out;
}

/// What the registry says of itself, as far as it may be shown.
std::string explanation(const std::string& body) {
  auto parsed = json::parse_as<Complaints>(body);
  if (!parsed || parsed->errors.empty()) return {};
  const auto& first = parsed->errors.front();
  std::string out = first.message.empty() ? first.code : first.message;
  if (out.size() > kShownExplanation || violates(Form::line, out))
    return first.code.size() < 64 ? first.code : "";
  return out;
}

}  // namespace

struct Remote::Reply {
  Fetcher::Head head;
  std::string body;      ///< of a refusal
  bool at_home = false;  ///< it comes from the host that was asked, not from one it redirected to
};

Result<void> Remote::check_scheme(const Url& url) const {
  if (url.tls || rules_.is_insecure(url.authority)) return {};
  return Error{
      Code::permission_denied,
      {url.authority + " 未使用 TLS，管理员未允许（images.insecureRegistries）",
       url.authority +
           " does not use TLS, and the administrator has not allowed that (images.insecureRegistries)"}};
}

Result<Remote::Reply> Remote::follow(Url url, const std::vector<std::string>& headers,
                                     const std::string& authorization, const Fetcher::Sink& sink) {
  const std::string first = url.text().substr(0, url.text().size() - url.target.size());
  for (int hops = 0; hops <= kMostRedirects; ++hops) {
    TRY(check_scheme(url));
    Fetcher::Request request{url.text(), headers, rules_.any_address(url.authority, url.tls)};
    const bool at_home = request.url.starts_with(first + "/");
    if (at_home && !authorization.empty()) request.headers.push_back("Authorization: " + authorization);
    Reply reply;
    reply.at_home = at_home;
    const auto take = [&](const Fetcher::Head& head, std::string_view piece) -> Result<void> {
      if (head.status == 200 || head.status == 206) return sink(head, piece);
      if (reply.body.size() + piece.size() <= kMostExplanation) reply.body += piece;
      return {};
    };
    auto head = fetcher_.get(request, take, go_on_);
    if (!head) {
      Error error = std::move(head).error();
      error.message = {url.authority + "：" + error.message.zh, url.authority + ": " + error.message.en};
      return error;
    }
    reply.head = *std::move(head);
    if (!is_redirect(reply.head.status)) return reply;
    const std::string_view location = reply.head.get("location");
    url = TRY(parse_url(location.starts_with('/') && !location.starts_with("//")
                            ? fmt::format("{}://{}{}", url.tls ? "https" : "http", url.authority, location)
                            : std::string(location)));
  }
  return Error{Code::invalid_argument,
               {name_.authority + "：重定向过多", name_.authority + ": redirects too often"}};
}

Result<Remote::Reply> Remote::ask(const std::string& target, std::vector<std::string> headers,
                                  const Fetcher::Sink& sink) {
  const Url url{!rules_.is_insecure(name_.authority), name_.authority, "/v2/" + name_.repository + target};
  Reply reply = TRY(follow(url, headers, authorization_, sink));
  // Another host's challenge is not the registry's: the credentials would go wherever that host says.
  if (reply.head.status != 401 || !reply.at_home) return reply;
  // The first time, or the token has expired.
  authorization_ = TRY(authorize(reply.head));
  if (authorization_.empty()) return reply;
  return follow(url, headers, authorization_, sink);
}

std::string Remote::basic() const {
  if (credentials_.empty()) return {};
  return "Basic " + to_base64(credentials_.user_name + ":" + credentials_.password);
}

/// "" where nothing that could be done would help.
Result<std::string> Remote::authorize(const Fetcher::Head& refusal) {
  const std::string basic = this->basic();
  std::string by_basic;
  for (const auto& [name, value] : refusal.headers) {
    if (name != "www-authenticate") continue;
    if (http::has_scheme(value, "bearer")) return fetch_token(value);
    if (http::has_scheme(value, "basic") && authorization_ != basic) by_basic = basic;
  }
  return by_basic;
}

Result<std::string> Remote::fetch_token(std::string_view challenge) {
  auto realm = parse_url(parameter(challenge, "realm"));
  if (!realm)
    return Error{Code::invalid_argument,
                 {name_.authority + "：未给出可用的令牌地址",
                  name_.authority + ": does not say where tokens are to be had"}};
  std::string scope = parameter(challenge, "scope");
  if (scope.empty()) scope = "repository:" + name_.repository + ":pull";
  realm->target += realm->target.find('?') == std::string::npos ? '?' : '&';
  realm->target += "scope=" + http::percent_encode(scope);
  if (const std::string service = parameter(challenge, "service"); !service.empty())
    realm->target += "&service=" + http::percent_encode(service);
  std::string body;
  const Reply reply =
      TRY(follow(*realm, {}, basic(), [&](const Fetcher::Head&, std::string_view piece) -> Result<void> {
        body += piece;
        if (body.size() <= kMostToken) return {};
        return Error{Code::too_large, {"令牌过大", "the token is too large"}};
      }));
  if (reply.head.status != 200) return refused(reply, "token");
  const auto answer = json::parse_as<TokenAnswer>(body);
  const std::string token = !answer ? "" : answer->token.empty() ? answer->access_token : answer->token;
  if (token.empty() || violates(Form::line, token))
    return Error{Code::invalid_argument,
                 {name_.authority + "：未给出令牌", name_.authority + ": gave no token"}};
  return "Bearer " + token;
}

Error Remote::refused(const Reply& reply, const std::string& what) const {
  const int status = reply.head.status;
  const std::string said = explanation(reply.body);
  const auto words = [&](const std::string& zh, const std::string& en) {
    return Text{name_.authority + "：" + zh + (said.empty() ? "" : "（" + said + "）"),
                name_.authority + ": " + en + (said.empty() ? "" : " (" + said + ")")};
  };
  if (status == 401 || status == 403)
    return {Code::permission_denied,
            credentials_.empty()
                ? words("没有权限：需要用户名和密码，或镜像不存在",
                        "refuses: a user name and a password are needed, or there is no such image")
                : words("拒绝了该用户名和密码", "refuses with this user name and password")};
  if (status == 404) return {Code::not_found, words("没有 " + what, "has no " + what)};
  if (status == 429) return {Code::resource_exhausted, words("请求过于频繁", "is asked too often")};
  if (status >= 500)
    return {Code::unavailable,
            words(fmt::format("出错，状态 {}", status), fmt::format("failed with status {}", status))};
  return {Code::failed_precondition,
          words(fmt::format("意外的状态 {}", status), fmt::format("answered with status {}", status))};
}

Result<Remote::Document> Remote::manifest(const std::string& wanted) {
  Document out;
  const auto take = [&](const Fetcher::Head&, std::string_view piece) -> Result<void> {
    out.bytes += piece;
    if (out.bytes.size() <= oci::kMaxDocument) return {};
    return Error{Code::too_large, {"清单过大", "the manifest is too large"}};
  };
  const Reply reply = TRY(ask("/manifests/" + wanted,
                              {fmt::format("Accept: {}, {}, {}, {}", oci::kIndex, oci::kManifest,
                                           oci::kDockerIndex, oci::kDockerManifest)},
                              take));
  if (reply.head.status != 200) return refused(reply, name_.repository + ":" + wanted);
  const std::string_view type = reply.head.get("content-type");
  out.media_type = type.substr(0, std::min(type.find(';'), type.size()));
  const bool by_digest = wanted.starts_with("sha256:");
  const std::string promised = by_digest ? wanted : std::string(reply.head.get("docker-content-digest"));
  Sha256 hash;
  hash.add(out.bytes);
  if (promised.starts_with("sha256:") && hash.digest() != promised)
    return Error{Code::invalid_argument,
                 {name_.authority + "：清单与摘要不符：" + promised,
                  name_.authority + ": the manifest does not match its digest " + promised}};
  return out;
}

Result<void> Remote::blob(const std::string& digest, std::uint64_t from,
                          const std::function<Result<void>(std::string_view)>& sink) {
  std::vector<std::string> headers;
  if (from > 0) headers.push_back(fmt::format("Range: bytes={}-", from));
  std::uint64_t skip = 0;
  bool begun = false;
  const auto take = [&](const Fetcher::Head& head, std::string_view piece) -> Result<void> {
    if (!std::exchange(begun, true)) {
      const auto first = head.status == 206 ? first_byte_of(head.get("content-range")) : 0;
      if (!first || *first > from)
        return Error{Code::invalid_argument,
                     {name_.authority + "：返回了别的范围",
                      name_.authority + ": sent another range than was asked for"}};
      skip = from - *first;
    }
    const auto passed = std::min<std::uint64_t>(skip, piece.size());
    skip -= passed;
    piece.remove_prefix(passed);
    return piece.empty() ? Result<void>() : sink(piece);
  };
  const Reply reply = TRY(ask("/blobs/" + digest, std::move(headers), take));
  if (reply.head.status == 200 || reply.head.status == 206 || reply.head.status == 416) return {};
  return refused(reply, digest);
}

}  // namespace lathe::images::pull
