#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "base/json.h"
#include "http/api.h"
#include "images/reference.h"

/// What the images' requests and answers look like. The names are the documented API's.
namespace lathe::images::wire {

struct NewImage {
  std::string imageName, imageIcon, imageOverView, imageDescribe, userId;
  std::vector<std::string> imageLabel;
};
inline void fields(Fields& f, NewImage& in) {
  f.field("imageName", in.imageName, {.doc = "镜像名称", .required = true});
  f.field("imageLabel", in.imageLabel,
          {.doc = "镜像分类", .max_length = 64, .max_items = 50, .form = Form::line});
  f.field("imageDescribe", in.imageDescribe, {.doc = "镜像描述", .max_length = 10'000});
  f.field("imageIcon", in.imageIcon, {.doc = "镜像图标选择", .max_length = 100'000});
  f.field("imageOverView", in.imageOverView, {.doc = "镜像综述", .max_length = 2000});
  f.field("userId", in.userId, {.doc = "用户ID", .required = true, .form = Form::id});
  if (in.imageName.empty()) return;
  if (auto wrong = wrong_name(in.imageName)) f.refuse("imageName", *wrong);
}

struct NewImport {
  std::string fileUrl, userId, imageId, imageName, imageTag = "latest";
};
inline void fields(Fields& f, NewImport& in) {
  f.field("fileUrl", in.fileUrl,
          {.doc = "文件路径，相对于用户私有根目录", .required = true, .max_length = 4096});
  f.field("userId", in.userId, {.doc = "用户ID", .form = Form::id});
  f.field("imageId", in.imageId, {.doc = "镜像ID", .form = Form::id});
  f.field("imageName", in.imageName, {.doc = "镜像名称，未给出 imageId 时使用"});
  f.field("imageTag", in.imageTag, {.doc = "镜像标签，默认 latest"});
  if (auto wrong = wrong_tag(in.imageTag)) f.refuse("imageTag", *wrong);
  if (f.reading() && in.imageId.empty() && in.imageName.empty())
    f.refuse("imageId", {"imageId 与 imageName 至少填一个", "or imageName is required"});
}

struct ListQuery : http::PageQuery {
  Json imageName;
  std::string userId;
};
inline void fields(Fields& f, ListQuery& q) {
  fields(f, static_cast<http::PageQuery&>(q));
  f.field("imageName", q.imageName, {.doc = "镜像名称（包含即可）；字符串或字符串数组"});
  f.field("userId", q.userId, {.doc = "用户ID", .form = Form::id});
}

struct ImageItem {
  std::string imageName, imageDescribe;
  Time updateTime{};
  std::int64_t imageStatus = 0;
  std::string imageOverView;
  std::optional<std::vector<std::string>> imageLabel;
  std::int64_t tagNum = 0;
  Time createTime{};
  std::string user_id, imageIcon, statusName, id, imageSize, imageTag;
  std::optional<std::string> failReason;
  std::optional<std::int64_t> progress;
};
inline void fields(Fields& f, ImageItem& i) {
  f.field("imageName", i.imageName);
  f.field("imageDescribe", i.imageDescribe);
  f.field("updateTime", i.updateTime);
  f.field("imageStatus", i.imageStatus, {.doc = "0 待上传，1 成功，2 上传中，3 失败", .min = 0, .max = 3});
  f.field("imageOverView", i.imageOverView);
  f.field("imageLabel", i.imageLabel);
  f.field("tagNum", i.tagNum, {.doc = "标签数"});
  f.field("createTime", i.createTime);
  f.field("user_id", i.user_id);
  f.field("imageIcon", i.imageIcon);
  f.field("statusName", i.statusName);
  f.field("id", i.id);
  f.field("imageSize", i.imageSize, {.doc = "最新标签的大小"});
  f.field("imageTag", i.imageTag, {.doc = "最新的标签"});
  f.field("failReason", i.failReason, {.doc = "上传失败的原因"});
  f.field("progress", i.progress, {.doc = "上传进度，百分比"});
}

// The project's own API.

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct ByTag : ById {
  std::string tag;
};
inline void fields(Fields& f, ByTag& in) {
  fields(f, static_cast<ById&>(in));
  f.field("tag", in.tag, {.required = true, .max_length = 128});
}

struct ImagePatch : ById {
  std::optional<bool> isPublic;
  std::optional<std::string> description, overview, icon;
  std::optional<std::vector<std::string>> labels;
};
inline void fields(Fields& f, ImagePatch& p) {
  fields(f, static_cast<ById&>(p));
  f.field("public", p.isPublic, {.doc = "May every user run it?"});
  f.field("description", p.description, {.max_length = 10'000});
  f.field("overview", p.overview, {.max_length = 2000});
  f.field("icon", p.icon, {.max_length = 100'000});
  f.field("labels", p.labels, {.max_length = 64, .max_items = 50, .form = Form::line});
}

struct NewPull {
  std::string reference, username, password, name, tag, userId;
};
inline void fields(Fields& f, NewPull& in) {
  f.field("reference", in.reference,
          {.doc = "registry.example/team/app:1.0, or with @sha256:…; the registry is part of it",
           .required = true,
           .max_length = 1024,
           .form = Form::line});
  f.field("username", in.username, {.doc = "For the registry; empty: nobody", .form = Form::line});
  f.field(
      "password", in.password,
      {.doc = "Or a token. Kept in memory until the import's end, and nowhere else", .max_length = 65536});
  f.field("name", in.name, {.doc = "What it is to be called here; empty: as there, without the registry"});
  f.field("tag", in.tag, {.doc = "Empty: as there"});
  f.field("userId", in.userId, {.doc = "Whose it becomes; empty: the caller's", .form = Form::id});
  if (!in.name.empty())
    if (auto wrong = wrong_name(in.name)) f.refuse("name", *wrong);
  if (!in.tag.empty())
    if (auto wrong = wrong_tag(in.tag)) f.refuse("tag", *wrong);
  if (f.reading() && in.username.empty() != in.password.empty())
    f.refuse(in.username.empty() ? "username" : "password",
             {"用户名与密码应同时给出", "is needed too: a user name and a password go together"});
}

struct PullOut {
  std::string id, importId, name, tag, reference;
};
inline void fields(Fields& f, PullOut& p) {
  f.field("id", p.id, {.doc = "Of the image: GET /api/v1/images/{id} tells how its imports go"});
  f.field("importId", p.importId);
  f.field("name", p.name);
  f.field("tag", p.tag);
  f.field("reference", p.reference);
}

struct TagOut {
  std::string tag, digest;
  std::int64_t size = 0;
  Time createdAt{}, updatedAt{};
};
inline void fields(Fields& f, TagOut& t) {
  f.field("tag", t.tag);
  f.field("digest", t.digest, {.doc = "Of the OCI manifest"});
  f.field("size", t.size, {.doc = "Bytes of everything the image needs"});
  f.field("createdAt", t.createdAt);
  f.field("updatedAt", t.updatedAt);
}

struct ImportOut {
  std::string id, tag, file, reference, state;
  std::optional<std::string> failReason;
  std::int64_t bytesDone = 0, bytesTotal = 0;
  Time createdAt{};
  std::optional<Time> endedAt;
};
inline void fields(Fields& f, ImportOut& i) {
  f.field("id", i.id);
  f.field("tag", i.tag);
  f.field("file", i.file, {.doc = "The archive; empty where the image is pulled"});
  f.field("reference", i.reference, {.doc = "In the registry that it is pulled from"});
  f.field("state", i.state, {.one_of = "queued|running|succeeded|failed"});
  f.field("failReason", i.failReason);
  f.field("bytesDone", i.bytesDone, {.doc = "Of the archive, or of the layers"});
  f.field("bytesTotal", i.bytesTotal);
  f.field("createdAt", i.createdAt);
  f.field("endedAt", i.endedAt);
}

struct ImageOut {
  std::string id, userId, name, description, overview, icon, status;
  std::vector<std::string> labels;
  bool isPublic = false;
  std::optional<std::string> failReason;
  std::vector<TagOut> tags;
  std::vector<ImportOut> imports;
  Time createdAt{}, updatedAt{};
};
inline void fields(Fields& f, ImageOut& i) {
  f.field("id", i.id);
  f.field("userId", i.userId, {.doc = "Whose it is; empty for the platform's own"});
  f.field("name", i.name);
  f.field("description", i.description);
  f.field("overview", i.overview);
  f.field("icon", i.icon);
  f.field("status", i.status, {.one_of = "empty|ready|importing|failed"});
  f.field("labels", i.labels);
  f.field("public", i.isPublic);
  f.field("failReason", i.failReason, {.doc = "Why the last import failed"});
  f.field("tags", i.tags, {.doc = "Newest first"});
  f.field("imports", i.imports, {.doc = "The last twenty, newest first"});
  f.field("createdAt", i.createdAt);
  f.field("updatedAt", i.updatedAt);
}

}  // namespace lathe::images::wire
