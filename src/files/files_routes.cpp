#include <boost/json.hpp>

#include "files/download.h"
#include "files/files_service.h"
#include "files/files_wire.h"
#include "files/resumable_routes.h"
#include "http/envelope.h"
#include "http/multipart.h"

namespace lathe::files {

namespace {

constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};
constexpr std::size_t kFieldBytes = 16 * 1024;

/// The text fields of an upload, which may come before the files, after them, or in the query.
struct UploadFields {
  std::string current_path, public_user_id;

  void set(std::string_view name, std::string value) {
    if (name == "currentPath")
      current_path = std::move(value);
    else if (name == "publicUserId")
      public_user_id = std::move(value);
  }
};

/// Moves the file of one part to the disk.
Result<void> take_file(http::MultipartReader& form, const http::MultipartReader::Part& part,
                       FolderUpload& upload) {
  TRY(upload.begin_file(*part.filename, part.name));
  for (auto piece = TRY(form.read()); !piece.empty(); piece = TRY(form.read())) TRY(upload.write(piece));
  return upload.end_file();
}

Result<void> take_form(http::MultipartReader& form, FolderUpload& upload, UploadFields& fields) {
  while (auto part = TRY(form.next_part())) {
    if (part->filename && part->name != "file")
      return invalid_field(part->name,
                           {"文件应放在名为 file 的部分中", "holds a file; files go in parts named `file`"});
    if (part->name == "file" && !part->filename)
      return invalid_field("file", {"缺少文件名", "has no file name"});
    if (part->filename) {
      TRY(take_file(form, *part, upload));
    } else {
      fields.set(part->name, TRY(form.read_all(kFieldBytes)));
    }
  }
  if (upload.file_count() > 0) return {};
  return invalid_field("file", {"必填：请选择要上传的文件", "is required: there is no file in the request"});
}

Result<void> upload_folder(FilesService& files, http::Call& call, bool to_public) {
  UploadFields fields;
  for (const auto& [name, value] : call.request.query) fields.set(name, value);
  auto form = TRY(http::MultipartReader::open(*call.request.stream, call.request.headers.get("content-type"),
                                              {.max_parts = files.max_parts() + 100}));
  // Whose quota it is may be told only after the files; until then it is the caller's.
  std::string charged_to = call.caller.user_id;
  if (to_public && !fields.public_user_id.empty())
    charged_to = TRY(files.accounts().acting_for(call.caller, fields.public_user_id, "publicUserId"));
  auto upload = TRY(files.begin_upload(charged_to));
  TRY(take_form(form, *upload, fields));
  if (to_public && fields.public_user_id.empty())
    return invalid_field("publicUserId", {"必填", "is required"});
  Root root{call.caller.user_id, to_public ? Scope::public_files : Scope::private_files};
  if (to_public)
    root.user_id = TRY(files.accounts().acting_for(call.caller, fields.public_user_id, "publicUserId"));
  return upload->publish(root, TRY(Path::parse(fields.current_path, "currentPath")));
}

void add_documented(http::Api& api, FilesService& files) {
  auto add = [&](http::Route route, Json parameters, bool to_public) {
    http::Api::RawOptions options;
    options.stream = true;
    options.request_type = "multipart/form-data";
    options.answer_type = "application/json";
    options.parameters = std::move(parameters);
    auto handle = [&files, route, to_public](http::Call& call) -> Result<http::Response> {
      TRY(upload_folder(files, call, to_public));
      return http::success_response(*route.envelope, route.success_status, route.success_message, {});
    };
    api.add_raw(route, std::move(options), std::move(handle));
  };
  http::Route route{.method = http::Method::post,
                    .path = "/api/file/file/uploadFolder",
                    .access = http::Access::user,
                    .id = "uploadFolder",
                    .tag = "files",
                    .summary = "Upload files into the caller's private root",
                    .envelope = &http::kFileEnvelope,
                    .success_message = "文件上传成功",
                    .section = "1.1",
                    .max_body = kUnlimited};
  add(route, json::schema<UploadForm>(), false);
  route.path = "/api/file/file/uploadPublicFolder";
  route.id = "uploadPublicFolder";
  route.summary = "Upload files into a user's public root";
  route.section = "1.2";
  add(route, json::schema<PublicUploadForm>(), true);
}

http::Route own(http::Method method, std::string path, std::string_view id, std::string_view summary,
                int status = 200) {
  return {.method = method,
          .path = std::move(path),
          .access = http::Access::user,
          .id = id,
          .tag = "files",
          .summary = summary,
          .success_status = status};
}

Result<http::Response> content(FilesService& files, http::Call& call) {
  boost::json::object query;
  for (const auto& [name, value] : call.request.query) query.insert_or_assign(name, value);
  const auto wanted = TRY(json::read<PathQuery>(Json(std::move(query))));
  const Path path = TRY(Path::parse(wanted.path, "path"));
  return download(call.request, TRY(files.open_content(call.caller, wanted)), path.name());
}

}  // namespace

void FilesService::add_routes(http::Api& api) {
  using http::Method;
  add_documented(api, *this);
  api.add<ListQuery, Listing>(
      own(Method::get, "/api/v1/files", "listFiles", "What is at a path, and what a folder holds"),
      [this](http::Call& call, ListQuery query) { return list(call.caller, query); });
  api.add<MoveQuery, Entry>(
      own(Method::patch, "/api/v1/files", "moveFile", "Move or rename a file or folder"),
      [this](http::Call& call, MoveQuery query) { return move(call, query); });
  api.add<PathQuery, Nothing>(
      own(Method::del, "/api/v1/files", "deleteFile", "Delete a file, or a folder with all it holds", 204),
      [this](http::Call& call, PathQuery query) -> Result<Nothing> {
        TRY(remove(call, query));
        return Nothing{};
      });
  api.add<PathQuery, Entry>(own(Method::post, "/api/v1/folders", "createFolder", "Make a folder", 201),
                            [this](http::Call& call, PathQuery query) { return make_folder(call, query); });
  http::Api::RawOptions options;
  options.parameters = json::schema<PathQuery>();
  api.add_raw(own(Method::get, "/api/v1/files/content", "downloadFile",
                  "A file's bytes; honours Range, If-None-Match and If-Range"),
              std::move(options), [this](http::Call& call) { return content(*this, call); });
  add_resumable_routes(api, *this, *resumable_);
}

}  // namespace lathe::files
