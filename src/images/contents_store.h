#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "db/database.h"
#include "images/contents.h"

/// Which images have which manifests, and which blobs are needed for it: the reference counts of the store.
namespace lathe::images::store {

/// A manifest as the database knows it.
struct ManifestRow {
  std::string digest, media_type, config_digest;
  std::string kind;  ///< "image", "index" or "artifact"
  std::string artifact_type, subject;
  Json annotations;
  std::int64_t size = 0;  ///< of all its blobs
};
void fields(Fields& f, ManifestRow& r);
std::string_view name(Contents::Kind kind);

/// Records that the image has this manifest, and that the store has its blobs.
void add_contents(db::Transaction& tx, std::string_view image_id, const Contents& contents, Time now);
/// Names a manifest that the image has. `size` is what the tag's users see.
void set_tag(db::Transaction& tx, std::string_view image_id, std::string_view tag, std::string_view manifest,
             std::int64_t size, Time now);
std::optional<ManifestRow> manifest(db::Transaction& tx, std::string_view digest);
/// The one that the image has.
std::optional<ManifestRow> manifest_of(db::Transaction& tx, std::string_view image_id,
                                       std::string_view digest);
/// The tags of the image that name it.
std::vector<std::string> tags_of(db::Transaction& tx, std::string_view image_id, std::string_view digest);

/// Looks anew which of the image's manifests its tags lead to; gives those that they do not lead to any more.
/// Called after every change of its tags or manifests.
std::vector<std::string> find_unreachable(db::Transaction& tx, std::string_view image_id, Time now);
/// The image does not have these (and tags that name them) any more.
void drop_contents(db::Transaction& tx, std::string_view image_id, const std::vector<std::string>& manifests);
/// The same for everything that has been unreachable since `before` and is not among `kept`.
void drop_expired(db::Transaction& tx, Time before, const std::set<std::string, std::less<>>& kept);
/// Forgets loose blobs that old.
void drop_expired_blobs(db::Transaction& tx, Time before);

/// Forgets manifests that no image has; gives the blobs that may be without use now.
std::vector<std::string> forget_manifests(db::Transaction& tx);
bool blob_in_use(db::Transaction& tx, std::string_view digest);

}  // namespace lathe::images::store
