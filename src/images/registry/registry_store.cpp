#include "images/registry/registry_store.h"

#include "db/row.h"

namespace lathe::images::store {

static void fields(Fields& f, ReferrerRow& r) {
  f.field("digest", r.digest);
  f.field("media_type", r.media_type);
  f.field("artifact_type", r.artifact_type);
  f.field("annotations", r.annotations);
  f.field("size", r.size);
}

static void fields(Fields& f, RepositoryRow& r) {
  f.field("user_id", r.user_id);
  f.field("name", r.name);
}

namespace {

std::vector<std::string> first_column(const db::Rows& rows) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

std::optional<std::uint64_t> size_in(const db::Rows& rows) {
  if (rows.empty()) return std::nullopt;
  return static_cast<std::uint64_t>(rows.integer(0, 0));
}

}  // namespace

void hold_loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name, const Blob& blob,
                     Time now) {
  tx.execute(
      "INSERT INTO image_loose_blobs (user_id, name, digest, size, held_at) VALUES ($1, $2, $3, $4, $5) "
      "ON CONFLICT (user_id, name, digest) DO UPDATE SET held_at = excluded.held_at",
      {user_id, name, blob.digest, static_cast<std::int64_t>(blob.size), now});
}

std::optional<Time> loose_since(db::Transaction& tx, std::string_view user_id, std::string_view name,
                                std::string_view digest) {
  const auto rows =
      tx.query("SELECT held_at FROM image_loose_blobs WHERE user_id = $1 AND name = $2 AND digest = $3",
               {user_id, name, digest});
  if (rows.empty()) return std::nullopt;
  return Time(Duration(rows.integer(0, 0)));
}

bool drop_loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name,
                     std::string_view digest) {
  return tx.execute("DELETE FROM image_loose_blobs WHERE user_id = $1 AND name = $2 AND digest = $3",
                    {user_id, name, digest}) > 0;
}

std::vector<std::string> drop_loose_blobs(db::Transaction& tx, std::string_view user_id,
                                          std::string_view name) {
  auto out = first_column(
      tx.query("SELECT digest FROM image_loose_blobs WHERE user_id = $1 AND name = $2", {user_id, name}));
  tx.execute("DELETE FROM image_loose_blobs WHERE user_id = $1 AND name = $2", {user_id, name});
  return out;
}

std::optional<std::uint64_t> loose_blob(db::Transaction& tx, std::string_view user_id, std::string_view name,
                                        std::string_view digest) {
  return size_in(
      tx.query("SELECT size FROM image_loose_blobs WHERE user_id = $1 AND name = $2 AND digest = $3",
               {user_id, name, digest}));
}

std::optional<std::uint64_t> blob_of(db::Transaction& tx, std::string_view image_id,
                                     std::string_view digest) {
  return size_in(
      tx.query("SELECT b.size FROM image_blobs b JOIN image_contents c ON c.manifest = b.manifest "
               "JOIN image_manifests m ON m.digest = c.manifest AND m.kind <> 'index' "
               "WHERE b.digest = $2 AND c.image_id = $1 LIMIT 1",
               {image_id, digest}));
}

bool user_has_blob(db::Transaction& tx, std::string_view user_id, std::string_view digest) {
  return !tx.query(
                "SELECT 1 FROM image_blobs b JOIN image_contents c ON c.manifest = b.manifest "
                "JOIN images i ON i.id = c.image_id WHERE b.digest = $2 AND i.user_id = $1 UNION ALL "
                "SELECT 1 FROM image_loose_blobs WHERE digest = $2 AND user_id = $1 LIMIT 1",
                {user_id, digest})
              .empty();
}

std::string needed_by(db::Transaction& tx, std::string_view image_id, std::string_view digest) {
  const auto rows = tx.query(
      "SELECT c.manifest FROM image_blobs b JOIN image_contents c ON c.manifest = b.manifest "
      "WHERE b.digest = $2 AND c.image_id = $1 LIMIT 1",
      {image_id, digest});
  return rows.empty() ? std::string() : rows.text(0, 0);
}

std::uint64_t document_size(db::Transaction& tx, std::string_view manifest) {
  return size_in(tx.query("SELECT size FROM image_blobs WHERE manifest = $1 AND digest = $1", {manifest}))
      .value_or(0);
}

bool has_loose_blobs(db::Transaction& tx, std::string_view user_id, std::string_view name) {
  return !tx.query("SELECT digest FROM image_loose_blobs WHERE user_id = $1 AND name = $2 LIMIT 1",
                   {user_id, name})
              .empty();
}

std::vector<std::string> tag_names(db::Transaction& tx, std::string_view image_id, std::string_view after,
                                   std::int64_t limit) {
  return first_column(
      tx.query("SELECT tag FROM image_tags WHERE image_id = $1 AND (LOWER(tag) > LOWER($2) OR "
               "(LOWER(tag) = LOWER($2) AND tag > $2)) ORDER BY LOWER(tag), tag LIMIT $3",
               {image_id, after, limit}));
}

std::vector<ReferrerRow> referrers(db::Transaction& tx, std::string_view image_id, std::string_view subject,
                                   std::string_view artifact_type) {
  return db::select<ReferrerRow>(
      tx,
      "SELECT m.digest, m.media_type, m.artifact_type, m.annotations, b.size FROM image_contents c "
      "JOIN image_manifests m ON m.digest = c.manifest "
      "JOIN image_blobs b ON b.manifest = m.digest AND b.digest = m.digest "
      "WHERE c.image_id = $1 AND m.subject = $2 AND ($3 = '' OR m.artifact_type = $3) "
      "ORDER BY c.created_at, m.digest",
      {image_id, subject, artifact_type});
}

std::vector<RepositoryRow> repositories(db::Transaction& tx, const std::optional<std::string>& user_id) {
  constexpr std::string_view kAll =
      "SELECT i.user_id, i.name FROM images i WHERE EXISTS "
      "(SELECT 1 FROM image_contents c WHERE c.image_id = i.id)";
  if (!user_id) return db::select<RepositoryRow>(tx, kAll);
  return db::select<RepositoryRow>(tx, std::string(kAll) + " AND (i.user_id = $1 OR i.is_public = 1)",
                                   {*user_id});
}

std::string signing_key(db::Transaction& tx, std::string fresh) {
  tx.execute("INSERT INTO image_registry_keys (id, secret) VALUES ('token', $1) ON CONFLICT (id) DO NOTHING",
             {std::move(fresh)});
  return tx.query("SELECT secret FROM image_registry_keys WHERE id = 'token'").text(0, 0);
}

}  // namespace lathe::images::store
