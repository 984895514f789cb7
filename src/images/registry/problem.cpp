#include "images/registry/problem.h"

#include <boost/json.hpp>

#include "base/json.h"

namespace lathe::images::registry {

namespace {

struct Row {
  Code code;
  std::string_view about;
  std::string_view said;
};

constexpr Row kCodes[] = {
    {Code::not_found, "name", "NAME_UNKNOWN"},
    {Code::not_found, "manifest", "MANIFEST_UNKNOWN"},
    {Code::not_found, "content", "MANIFEST_BLOB_UNKNOWN"},
    {Code::not_found, "blob", "BLOB_UNKNOWN"},
    {Code::not_found, "upload", "BLOB_UPLOAD_UNKNOWN"},
    {Code::invalid_argument, "name", "NAME_INVALID"},
    {Code::invalid_argument, "manifest", "MANIFEST_INVALID"},
    {Code::invalid_argument, "digest", "DIGEST_INVALID"},
    {Code::invalid_argument, "size", "SIZE_INVALID"},
    {Code::invalid_argument, "upload", "BLOB_UPLOAD_INVALID"},
    {Code::cancelled, "upload", "BLOB_UPLOAD_INVALID"},
};

/// A status that clients understand: 507 they would only call unexpected, and try again.
int status_of(Code code) {
  if (code == Code::storage_exhausted) return http_status(Code::permission_denied);
  return http_status(code);
}

std::string_view subject(const Error& error) {
  return error.violations.empty() ? std::string_view() : std::string_view(error.violations.front().field);
}

}  // namespace

std::string_view specification_code(const Error& error) {
  for (const Row& row : kCodes)
    if (row.code == error.code && row.about == subject(error)) return row.said;
  switch (error.code) {
    case Code::unauthenticated:
      return "UNAUTHORIZED";
    case Code::permission_denied:
    case Code::storage_exhausted:
    case Code::failed_precondition:
      return "DENIED";
    case Code::resource_exhausted:
    case Code::unavailable:
      return "TOOMANYREQUESTS";
    case Code::too_large:
      return "SIZE_INVALID";
    case Code::not_found:
      return "NAME_UNKNOWN";
    default:
      return "UNSUPPORTED";
  }
}

http::Response problem(const http::Request& request, const Error& error) {
  const bool said = request.headers.has("accept-language");
  const Language language = said ? request.language : Language::en;
  std::string message;
  for (const auto& violation : error.violations)
    message += (message.empty() ? "" : "; ") + in(language, violation.text);
  if (message.empty() || !in(language, error.message).empty()) message = in(language, error.message);
  boost::json::array list;
  list.push_back(boost::json::object{{"code", specification_code(error)}, {"message", message}});
  boost::json::object body;
  body["errors"] = std::move(list);
  http::Response response = http::Response::json(status_of(error.code), json::print(std::move(body)));
  if (error.retry_after.count() > 0)
    response.headers.set("Retry-After", std::to_string(error.retry_after.count()));
  return response;
}

Error no_repository(std::string_view name) {
  return about("name", not_found({"仓库", "repository"}, name));
}
Error no_manifest(std::string_view reference) {
  return about("manifest", not_found({"清单", "manifest"}, reference));
}
Error no_blob(std::string_view digest) {
  return about("blob", not_found({"内容", "blob"}, digest));
}
Error wrong_digest(std::string_view text) {
  const std::string shown(text.substr(0, 100));
  return about("digest",
               {Code::invalid_argument, {"不是 sha256 摘要：" + shown, "is not a sha256 digest: " + shown}});
}
Error wrong_manifest(Text why) {
  return about("manifest", {Code::invalid_argument, std::move(why)});
}
Error no_content(std::string_view digest) {
  const std::string shown(digest.substr(0, 100));
  return about("content", {Code::not_found,
                           {"仓库中没有清单所需的内容：" + shown,
                            "the repository does not have what the manifest names: " + shown}});
}

}  // namespace lathe::images::registry
