#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "db/database.h"
#include "images/blob_store.h"

/// What only the registry asks of the images' tables.
namespace lathe::images::store {

/// A blob that was pushed or mounted stays with the image of that name for a while, from now on.
void hold_loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name, const Blob& blob,
                     Time now);
/// Since when it is held; nothing if it is not loose there.
std::optional<Time> loose_since(db::Transaction& tx, std::string_view user_id, std::string_view name,
                                std::string_view digest);
bool drop_loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name,
                     std::string_view digest);
/// All of a name's; gives their digests.
std::vector<std::string> drop_loose_blobs(db::Transaction& tx, std::string_view user_id,
                                          std::string_view name);
/// The size of a blob that was pushed there lately.
std::optional<std::uint64_t> loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name,
                                        std::string_view digest);
/// The size of a blob that the image's manifests name (of an index, its manifests are none).
std::optional<std::uint64_t> blob_of(db::Transaction& tx, std::string_view image_id, std::string_view digest);
/// Has the user this blob in any of their images?
bool user_has_blob(db::Transaction& tx, std::string_view user_id, std::string_view digest);
/// A manifest of the image that names this blob; "" if there is none.
std::string needed_by(db::Transaction& tx, std::string_view image_id, std::string_view digest);
std::uint64_t document_size(db::Transaction& tx, std::string_view manifest);
bool has_loose_blobs(db::Transaction& tx, std::string_view user_id, std::string_view name);

/// Tags after `after`, in the specification's order: lexical, whatever the case.
std::vector<std::string> tag_names(db::Transaction& tx, std::string_view image_id, std::string_view after,
                                   std::int64_t limit);

struct ReferrerRow {
  std::string digest, media_type, artifact_type;
  Json annotations;
  std::int64_t size = 0;  ///< of the document
};
/// Manifests of the image whose subject this is; of one artifact type, unless that is empty.
std::vector<ReferrerRow> referrers(db::Transaction& tx, std::string_view image_id, std::string_view subject,
                                   std::string_view artifact_type);

struct RepositoryRow {
  std::string user_id, name;
};
/// Images that somebody can pull: theirs and public ones; all for an administrator (user_id absent).
std::vector<RepositoryRow> repositories(db::Transaction& tx, const std::optional<std::string>& user_id);

/// The key that is there, or `fresh`, which is then there.
std::string signing_key(db::Transaction& tx, std::string fresh);

}  // namespace lathe::images::store
