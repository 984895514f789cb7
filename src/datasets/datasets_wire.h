#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "http/slice.h"

/// What the datasets' requests and answers look like.
namespace lathe::datasets::wire {

inline void dataset_name(Fields& f, std::string& name, bool required) {
  f.field("name", name,
          {.doc = "Unique for its user", .required = required, .max_length = 128, .form = Form::name});
}

/// Where a version's data is.
struct Source {
  std::string version, path, scope = "private", description;
  std::int64_t storageMedium = 1201;
};
inline void source_fields(Fields& f, Source& s, bool required) {
  f.field("path", s.path,
          {.doc = "A folder or file below the user's root", .required = required, .max_length = 4096});
  f.field("scope", s.scope, {.doc = "Which root", .one_of = "private|public"});
  f.field("version", s.version,
          {.doc = "Its name; the next number if absent", .max_length = 64, .form = Form::name});
  f.field("storageMedium", s.storageMedium, {.doc = "1201: this machine's disk"});
  if (f.reading() && s.storageMedium != 1201)
    f.refuse("storageMedium", {"仅支持 1201（本地）", "must be 1201, local"});
}

struct NewDataset : Source {
  std::string name, userId;
  bool isPublic = false;
};
inline void fields(Fields& f, NewDataset& d) {
  dataset_name(f, d.name, true);
  f.field("description", d.description, {.max_length = 10'000});
  f.field("public", d.isPublic, {.doc = "May every user's jobs read it?"});
  f.field("userId", d.userId, {.doc = "Whose it is; your own if absent", .form = Form::id});
  source_fields(f, d, false);
}

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct NewVersion : Source {
  std::string id;
};
inline void fields(Fields& f, NewVersion& v) {
  f.field("id", v.id, {.doc = "Of the dataset", .required = true, .max_length = 64, .form = Form::id});
  f.field("description", v.description, {.max_length = 10'000});
  source_fields(f, v, true);
}

struct VersionId : ById {
  std::string versionId;
};
inline void fields(Fields& f, VersionId& in) {
  fields(f, static_cast<ById&>(in));
  f.field("versionId", in.versionId, {.required = true, .max_length = 64, .form = Form::id});
}

struct Patch : ById {
  std::optional<std::string> name, description;
  std::optional<bool> isPublic;
};
inline void fields(Fields& f, Patch& p) {
  fields(f, static_cast<ById&>(p));
  f.field("name", p.name, {.max_length = 128, .form = Form::name});
  f.field("description", p.description, {.max_length = 10'000});
  f.field("public", p.isPublic);
}

struct ListQuery : http::SliceQuery {
  std::string userId, name;
};
inline void fields(Fields& f, ListQuery& q) {
  fields(f, static_cast<http::SliceQuery&>(q));
  f.field("userId", q.userId, {.doc = "Whose, besides the public ones", .form = Form::id});
  f.field("name", q.name, {.doc = "Contained in the name"});
}

struct VersionQuery : http::SliceQuery {
  std::string id;
};
inline void fields(Fields& f, VersionQuery& q) {
  fields(f, static_cast<http::SliceQuery&>(q));
  f.field("id", q.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct VersionOut {
  std::string id, version, description, scope, path, state;
  std::optional<std::int64_t> size, fileCount;
  std::int64_t storageMedium = 1201;
  Time createdAt{};
};
inline void fields(Fields& f, VersionOut& v) {
  f.field("id", v.id, {.doc = "What jobs call datasetVersionId"});
  f.field("version", v.version);
  f.field("description", v.description);
  f.field("storageMedium", v.storageMedium);
  f.field("scope", v.scope, {.one_of = "private|public"});
  f.field("path", v.path);
  f.field("state", v.state,
          {.doc = "`measuring` until size and fileCount are known; `missing`: there was nothing at its path",
           .one_of = "measuring|ready|missing"});
  f.field("size", v.size, {.doc = "Bytes"});
  f.field("fileCount", v.fileCount);
  f.field("createdAt", v.createdAt);
}

struct DatasetOut {
  std::string id, userId, name, description;
  bool isPublic = false;
  std::int64_t versionCount = 0;
  std::optional<VersionOut> latestVersion;
  Time createdAt{}, updatedAt{};
};
inline void fields(Fields& f, DatasetOut& d) {
  f.field("id", d.id);
  f.field("userId", d.userId);
  f.field("name", d.name);
  f.field("description", d.description);
  f.field("public", d.isPublic);
  f.field("versionCount", d.versionCount);
  f.field("latestVersion", d.latestVersion);
  f.field("createdAt", d.createdAt);
  f.field("updatedAt", d.updatedAt);
}

}  // namespace lathe::datasets::wire
