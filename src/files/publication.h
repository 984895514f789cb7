#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/directory.h"
#include "base/fields.h"
#include "files/files.h"

namespace lathe::files {

/// Files that were staged whole and are to appear together under a user's root.
struct Publication {
  struct Item {
    std::string staged;  ///< name in the staging folder
    std::string target;  ///< path under the root
  };
  std::string user_id;
  std::string scope;
  std::vector<Item> items;
};
inline void fields(Fields& f, Publication::Item& item) {
  f.field("staged", item.staged, {.required = true});
  f.field("target", item.target, {.required = true, .max_length = 4096});
}
inline void fields(Fields& f, Publication& p) {
  f.field("userId", p.user_id, {.required = true});
  f.field("scope", p.scope, {.required = true});
  f.field("items", p.items, {.max_items = 1'000'000});
}

/// What a publication changed, for the user's usage.
struct Published {
  std::int64_t bytes = 0;
  std::int64_t inodes = 0;
};

/// Renames every staged file to its place in `root`, replacing files that are there, and makes it durable.
/// All or nothing: a folder where a file should go, or a file where a folder should, is failed_precondition
/// naming `field`, and nothing has changed. Of several files a journal is written into `stage` first; if the
/// server dies, `finish` completes what was begun. The staged bytes must be durable already.
Result<Published> publish(const Directory& stage, const Publication& publication, const Directory& root,
                          std::optional<Owner> owner, std::string_view field);

/// The journal of a publication that was under way when the server ended; nothing if it had not begun.
Result<std::optional<Publication>> unfinished(const Directory& stage);
/// Completes such a publication; files that are in place already stay.
Result<void> finish(const Directory& stage, const Publication& publication, const Directory& root,
                    std::optional<Owner> owner);

}  // namespace lathe::files
