#include "files/resumable_routes.h"

#include <boost/json.hpp>

#include "files/files_service.h"
#include "http/envelope.h"

namespace lathe::files {

namespace {

constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};

/// One upload, as this API's own clients see it.
struct UploadInfo {
  std::string id, userId, scope, path, state;
  std::int64_t length = 0, offset = 0;
  Time expiresAt{};
};
void fields(Fields& f, UploadInfo& u) {
  f.field("id", u.id);
  f.field("userId", u.userId);
  f.field("scope", u.scope);
  f.field("path", u.path);
  f.field("state", u.state,
          {.doc = "`complete` once the file is in its place", .one_of = "receiving|publishing|complete"});
  f.field("length", u.length);
  f.field("offset", u.offset, {.doc = "Bytes that are safe on the disk"});
  f.field("expiresAt", u.expiresAt);
}

UploadInfo to_info(const UploadRow& row) {
  return {row.id, row.user_id, row.scope, row.path, row.state, row.length, row.received, row.expires_at};
}

void add_state(http::Response& response, const UploadRow& row) {
  response.headers.set("Upload-Offset", std::to_string(row.received));
  if (row.state != "complete") response.headers.set("Upload-Expires", tus::http_date(row.expires_at));
}

http::Response refusal(const http::Call& call, int status, Code code, Text text) {
  http::Response response = http::error_response(http::kBare, call.request, Error{code, std::move(text)});
  response.status = status;
  return response;
}

/// True, with the answer, if the request does not speak this version of the protocol.
bool wrong_version(const http::Call& call, http::Response& answer) {
  if (call.request.headers.get("tus-resumable") == tus::kVersion) return false;
  answer = refusal(call, 412, Code::failed_precondition,
                   {"需要请求头 Tus-Resumable: 1.0.0", "send the header Tus-Resumable: 1.0.0"});
  answer.headers.set("Tus-Version", std::string(tus::kVersion));
  return true;
}

bool wrong_type(const http::Call& call, http::Response& answer) {
  if (call.request.headers.get("content-type") == tus::kMediaType) return false;
  answer = refusal(call, 415, Code::invalid_argument,
                   {"Content-Type 应为 application/offset+octet-stream",
                    "Content-Type must be application/offset+octet-stream"});
  return true;
}

void refuse(const http::Call& call, const Resumable::Received& received, http::Response& answer) {
  switch (*received.refused) {
    case Resumable::Refused::busy:
      answer = refusal(call, 423, Code::failed_precondition,
                       {"另一请求正在写入此上传", "another request is writing to this upload"});
      return;
    case Resumable::Refused::checksum:
      answer =
          refusal(call, tus::kChecksumMismatch, Code::invalid_argument,
                  {"校验和不符，这些数据已丢弃", "the checksum does not match; these bytes were dropped"});
      return;
    case Resumable::Refused::offset:
      answer = refusal(call, 409, Code::failed_precondition,
                       {"Upload-Offset 应为 " + std::to_string(received.row.received),
                        "Upload-Offset must be " + std::to_string(received.row.received)});
      add_state(answer, received.row);
  }
}

/// `path`, or `currentPath` with `relativePath` or `filename`, of Upload-Metadata.
Result<Path> target_path(const std::map<std::string, std::string>& metadata) {
  auto value = [&](const char* key) {
    const auto it = metadata.find(key);
    return it == metadata.end() ? std::string() : it->second;
  };
  std::string text = value("path");
  if (text.empty()) {
    const std::string name = value("relativePath").empty() ? value("filename") : value("relativePath");
    if (!name.empty()) text = value("currentPath") + "/" + name;
  }
  Path path = TRY(Path::parse(text, "Upload-Metadata.path"));
  if (path.is_root() || text.ends_with('/'))
    return invalid_field("Upload-Metadata", {"缺少 path（或 filename）", "lacks `path` (or `filename`)"});
  return path;
}

/// Every handler fills in the answer it is given.
class Routes {
 public:
  Routes(FilesService& files, Resumable& uploads) : files_(files), uploads_(uploads) {}

  Result<void> options(http::Call&, http::Response& response) {
    response.status = 204;
    response.headers.set("Tus-Version", std::string(tus::kVersion));
    response.headers.set("Tus-Extension", std::string(tus::kExtensions));
    response.headers.set("Tus-Checksum-Algorithm", std::string(tus::kAlgorithms));
    return {};
  }

  Result<void> create(http::Call& call, http::Response& response) {
    if (wrong_version(call, response)) return {};
    const http::Headers& headers = call.request.headers;
    const std::int64_t length = TRY(tus::parse_count(headers.get("upload-length"), "Upload-Length"));
    const std::string_view metadata = headers.get("upload-metadata");
    const auto values = TRY(tus::parse_metadata(metadata));
    const Path path = TRY(target_path(values));
    auto checksum = TRY(tus::Checksum::parse(headers.get("upload-checksum")));
    RootQuery query;
    if (const auto scope = values.find("scope"); scope != values.end()) query.scope = scope->second;
    if (const auto user = values.find("userId"); user != values.end()) query.userId = user->second;
    if (query.scope != "private" && query.scope != "public")
      return invalid_field("Upload-Metadata.scope", {"应为 private 或 public", "must be private or public"});
    const Root root = TRY(files_.writable(call.caller, query));
    UploadRow row = TRY(uploads_.create(root, path, call.caller.user_id, length, metadata));
    response.status = 201;
    response.headers.set("Location", "/api/v1/uploads/" + row.id);
    if (headers.get("content-type") == tus::kMediaType && length > 0) {
      auto received =
          TRY(uploads_.receive(row.id, call.caller, 0, std::move(checksum), *call.request.stream));
      if (received.refused) {
        refuse(call, received, response);
        return {};
      }
      row = received.row;
    }
    add_state(response, row);
    return {};
  }

  Result<void> state(http::Call& call, http::Response& response) {
    if (call.request.method == http::Method::head && wrong_version(call, response)) return {};
    const UploadRow row = TRY(uploads_.find(call.request.capture("id"), call.caller));
    response = http::Response::json(200, json::write(to_info(row), json::TimeStyle::iso));
    response.headers.set("Cache-Control", "no-store");
    response.headers.set("Upload-Length", std::to_string(row.length));
    if (!row.metadata.empty()) response.headers.set("Upload-Metadata", row.metadata);
    add_state(response, row);
    return {};
  }

  Result<void> append(http::Call& call, http::Response& response) {
    if (wrong_version(call, response)) return {};
    if (wrong_type(call, response)) return {};
    const http::Headers& headers = call.request.headers;
    const std::int64_t offset = TRY(tus::parse_count(headers.get("upload-offset"), "Upload-Offset"));
    auto checksum = TRY(tus::Checksum::parse(headers.get("upload-checksum")));
    auto received = TRY(uploads_.receive(call.request.capture("id"), call.caller, offset, std::move(checksum),
                                         *call.request.stream));
    if (received.refused) {
      refuse(call, received, response);
      return {};
    }
    response.status = 204;
    add_state(response, received.row);
    return {};
  }

  Result<void> remove(http::Call& call, http::Response& response) {
    if (wrong_version(call, response)) return {};
    TRY(uploads_.remove(call.request.capture("id"), call.caller));
    response.status = 204;
    return {};
  }

 private:
  FilesService& files_;
  Resumable& uploads_;
};

}  // namespace

void add_resumable_routes(http::Api& api, FilesService& files, Resumable& uploads) {
  using http::Method;
  auto routes = std::make_shared<Routes>(files, uploads);
  using Handle = Result<void> (Routes::*)(http::Call&, http::Response&);
  auto add = [&](Method method, std::string path, std::string_view id, std::string_view summary, int status,
                 bool stream, Handle handle) {
    http::Route route{.method = method,
                      .path = std::move(path),
                      .access = method == Method::options ? http::Access(http::Access::open)
                                                          : http::Access(http::Access::user),
                      .id = id,
                      .tag = "files",
                      .summary = summary,
                      .success_status = status,
                      .max_body = stream ? kUnlimited : 1 << 20};
    http::Api::RawOptions options;
    options.stream = stream;
    if (stream) options.request_type = tus::kMediaType;
    options.answer_type = method == Method::get ? "application/json" : "";
    // Every answer names the protocol's version, refusals too.
    api.add_raw(std::move(route), std::move(options),
                [routes, handle](http::Call& call) -> Result<http::Response> {
                  http::Response response;
                  auto outcome = ((*routes).*handle)(call, response);
                  if (!outcome) response = http::error_response(http::kBare, call.request, outcome.error());
                  response.headers.set("Tus-Resumable", std::string(tus::kVersion));
                  return response;
                });
  };
  const std::string all = "/api/v1/uploads", one = "/api/v1/uploads/{id}";
  add(Method::options, all, "describeUploads", "What of tus 1.0 is spoken here", 204, false,
      &Routes::options);
  add(Method::post, all, "createUpload",
      "Begin a resumable upload (tus 1.0): Upload-Length, and in Upload-Metadata `path`, `scope`, `userId`",
      201, true, &Routes::create);
  add(Method::get, one, "getUpload", "How far a resumable upload is (HEAD: tus 1.0)", 200, false,
      &Routes::state);
  add(Method::patch, one, "appendUpload", "Send more bytes of a resumable upload", 204, true,
      &Routes::append);
  add(Method::del, one, "deleteUpload", "Give up a resumable upload", 204, false, &Routes::remove);
}

}  // namespace lathe::files
