#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/directory.h"
#include "base/fields.h"
#include "files/files.h"

namespace lathe::files {

std::string_view name(FileType type);  ///< file, folder, link, other

/// Which of whose roots; in every request of the own API.
struct RootQuery {
  std::string scope = "private";
  std::string userId;
};
inline void fields(Fields& f, RootQuery& q) {
  f.field("scope", q.scope,
          {.doc = "Which root: the user's private or public one", .one_of = "private|public"});
  f.field(
      "userId", q.userId,
      {.doc = "Whose files; your own if absent. Public ones are readable by every user", .form = Form::id});
}

struct ListQuery : RootQuery {
  std::string path;
  std::int64_t pageSize = 0;
  std::string cursor;
};
inline void fields(Fields& f, ListQuery& q) {
  fields(f, static_cast<RootQuery&>(q));
  f.field("path", q.path, {.doc = "A folder below the root; absent: the root itself", .max_length = 4096});
  f.field("pageSize", q.pageSize, {.doc = "At most this many items, 100 if absent", .min = 0, .max = 1000});
  f.field("cursor", q.cursor,
          {.doc = "`nextCursor` of the page before", .max_length = 600, .form = Form::id});
}

struct PathQuery : RootQuery {
  std::string path;
};
inline void fields(Fields& f, PathQuery& q) {
  fields(f, static_cast<RootQuery&>(q));
  f.field("path", q.path, {.doc = "Path below the root", .required = true, .max_length = 4096});
}

struct MoveQuery : PathQuery {
  std::string newPath;
  bool replace = false;
};
inline void fields(Fields& f, MoveQuery& q) {
  fields(f, static_cast<PathQuery&>(q));
  f.field("newPath", q.newPath,
          {.doc = "Where it goes, below the same root; missing folders are made",
           .required = true,
           .max_length = 4096});
  f.field("replace", q.replace, {.doc = "Replace a file that is there"});
}

/// One file or folder.
struct Entry {
  std::string name, path, type;
  std::int64_t size = 0;
  Time modifiedAt{};
};
inline void fields(Fields& f, Entry& e) {
  f.field("name", e.name);
  f.field("path", e.path, {.doc = "Below the root, without a leading slash"});
  f.field("type", e.type, {.doc = "`link` is a symbolic link", .one_of = "file|folder|link|other"});
  f.field("size", e.size, {.doc = "Bytes; 0 for anything but a file"});
  f.field("modifiedAt", e.modifiedAt);
}

struct Listing {
  Entry entry;
  std::vector<Entry> items;
  std::optional<std::string> nextCursor;
};
inline void fields(Fields& f, Listing& l) {
  f.field("entry", l.entry, {.doc = "What the path is itself"});
  f.field("items", l.items,
          {.doc = "What the folder holds, ordered by name; empty for a file", .max_items = 100'000});
  f.field("nextCursor", l.nextCursor, {.doc = "Where the next page begins; null after the last"});
}

/// What the multipart forms of 1.1 and 1.2 carry besides files, for the document.
struct UploadForm {
  std::string file, currentPath;
};
inline void fields(Fields& f, UploadForm& u) {
  f.field("file", u.file, {.doc = "要上传的文件；可以有多个，文件名可带相对路径", .required = true});
  f.field("currentPath", u.currentPath, {.doc = "当前路径，相对于用户根目录"});
}
struct PublicUploadForm {
  std::string file, publicUserId, currentPath;
};
inline void fields(Fields& f, PublicUploadForm& u) {
  f.field("file", u.file, {.doc = "要上传的文件；可以有多个，文件名可带相对路径", .required = true});
  f.field("publicUserId", u.publicUserId, {.doc = "用户ID", .required = true});
  f.field("currentPath", u.currentPath, {.doc = "当前路径，相对于公共根目录"});
}

}  // namespace lathe::files
