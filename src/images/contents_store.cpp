#include "images/contents_store.h"

#include <map>
#include <set>

#include "db/row.h"

namespace lathe::images::store {

namespace {

std::string text(std::string_view view) {
  return std::string(view);
}

struct Held {
  std::string subject;
  bool was_reachable = true;
};

/// What an image has, and what leads to what in it.
struct Graph {
  std::map<std::string, Held, std::less<>> manifests;
  std::multimap<std::string, std::string, std::less<>> leads_to;
  std::vector<std::string> tagged;
};

Graph read_graph(db::Transaction& tx, const std::string& image_id) {
  Graph out;
  const auto held = tx.query(
      "SELECT c.manifest, m.subject, c.unreachable_since FROM image_contents c "
      "JOIN image_manifests m ON m.digest = c.manifest WHERE c.image_id = $1",
      {image_id});
  for (std::size_t i = 0; i < held.size(); ++i) {
    out.manifests[held.text(i, 0)] = {held.text(i, 1), held.is_null(i, 2)};
    // Who refers to a manifest goes with it.
    if (!held.text(i, 1).empty()) out.leads_to.emplace(held.text(i, 1), held.text(i, 0));
  }
  const auto children = tx.query(
      "SELECT c.manifest, b.digest FROM image_contents c JOIN image_manifests m ON m.digest = c.manifest "
      "AND m.kind = 'index' JOIN image_blobs b ON b.manifest = c.manifest WHERE c.image_id = $1",
      {image_id});
  for (std::size_t i = 0; i < children.size(); ++i)
    out.leads_to.emplace(children.text(i, 0), children.text(i, 1));
  const auto tags = tx.query("SELECT DISTINCT manifest FROM image_tags WHERE image_id = $1", {image_id});
  for (std::size_t i = 0; i < tags.size(); ++i) out.tagged.push_back(tags.text(i, 0));
  return out;
}

std::set<std::string> reachable(const Graph& graph) {
  std::set<std::string> out;
  std::vector<std::string> next = graph.tagged;
  while (!next.empty()) {
    const std::string digest = std::move(next.back());
    next.pop_back();
    if (!graph.manifests.contains(digest) || !out.insert(digest).second) continue;
    const auto [from, to] = graph.leads_to.equal_range(digest);
    for (auto it = from; it != to; ++it) next.push_back(it->second);
  }
  return out;
}

}  // namespace

void fields(Fields& f, ManifestRow& r) {
  f.field("digest", r.digest);
  f.field("media_type", r.media_type);
  f.field("config_digest", r.config_digest);
  f.field("kind", r.kind);
  f.field("artifact_type", r.artifact_type);
  f.field("subject", r.subject);
  f.field("annotations", r.annotations);
  f.field("size", r.size);
}

std::string_view name(Contents::Kind kind) {
  switch (kind) {
    case Contents::Kind::image:
      return "image";
    case Contents::Kind::index:
      return "index";
    case Contents::Kind::artifact:
      break;
  }
  return "artifact";
}

void add_contents(db::Transaction& tx, std::string_view image_id, const Contents& contents, Time now) {
  const std::string& digest = contents.manifest.digest;
  tx.execute(
      "INSERT INTO image_manifests (digest, media_type, config_digest, size, created_at, kind, "
      "artifact_type, subject, annotations) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
      "ON CONFLICT (digest) DO NOTHING",
      {digest, contents.media_type, contents.config_digest, static_cast<std::int64_t>(contents.size), now,
       name(contents.kind), contents.artifact_type, contents.subject, json::print(contents.annotations)});
  for (const Blob& blob : contents.blobs)
    tx.execute(
        "INSERT INTO image_blobs (manifest, digest, size) VALUES ($1, $2, $3) "
        "ON CONFLICT (manifest, digest) DO NOTHING",
        {digest, blob.digest, static_cast<std::int64_t>(blob.size)});
  tx.execute(
      "INSERT INTO image_contents (image_id, manifest, unreachable_since, created_at) "
      "VALUES ($1, $2, NULL, $3) ON CONFLICT (image_id, manifest) DO UPDATE SET unreachable_since = NULL",
      {text(image_id), digest, now});
}

void set_tag(db::Transaction& tx, std::string_view image_id, std::string_view tag, std::string_view manifest,
             std::int64_t size, Time now) {
  tx.execute(
      "INSERT INTO image_tags (image_id, tag, manifest, size, created_at, updated_at) "
      "VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (image_id, tag) DO UPDATE SET "
      "manifest = excluded.manifest, size = excluded.size, updated_at = excluded.updated_at",
      {text(image_id), text(tag), text(manifest), size, now});
}

std::optional<ManifestRow> manifest(db::Transaction& tx, std::string_view digest) {
  return db::select_one<ManifestRow>(tx, "SELECT * FROM image_manifests WHERE digest = $1", {text(digest)});
}

std::optional<ManifestRow> manifest_of(db::Transaction& tx, std::string_view image_id,
                                       std::string_view digest) {
  return db::select_one<ManifestRow>(
      tx,
      "SELECT m.* FROM image_contents c JOIN image_manifests m ON m.digest = c.manifest "
      "WHERE c.image_id = $1 AND c.manifest = $2",
      {text(image_id), text(digest)});
}

std::vector<std::string> tags_of(db::Transaction& tx, std::string_view image_id, std::string_view digest) {
  const auto rows = tx.query("SELECT tag FROM image_tags WHERE image_id = $1 AND manifest = $2 ORDER BY tag",
                             {text(image_id), text(digest)});
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

std::vector<std::string> find_unreachable(db::Transaction& tx, std::string_view image_id, Time now) {
  const Graph graph = read_graph(tx, text(image_id));
  const auto kept = reachable(graph);
  std::vector<std::string> lost;
  for (const auto& [digest, held] : graph.manifests) {
    const bool is_reachable = kept.contains(digest);
    if (is_reachable == held.was_reachable) continue;
    tx.execute("UPDATE image_contents SET unreachable_since = $1 WHERE image_id = $2 AND manifest = $3",
               {is_reachable ? db::Value() : db::Value(now), text(image_id), digest});
    if (!is_reachable) lost.push_back(digest);
  }
  return lost;
}

void drop_contents(db::Transaction& tx, std::string_view image_id,
                   const std::vector<std::string>& manifests) {
  for (const std::string& digest : manifests) {
    tx.execute("DELETE FROM image_tags WHERE image_id = $1 AND manifest = $2", {text(image_id), digest});
    tx.execute("DELETE FROM image_contents WHERE image_id = $1 AND manifest = $2", {text(image_id), digest});
  }
}

void drop_expired(db::Transaction& tx, Time before, const std::set<std::string, std::less<>>& kept) {
  const auto expired =
      tx.query("SELECT image_id, manifest FROM image_contents WHERE unreachable_since <= $1", {before});
  for (std::size_t i = 0; i < expired.size(); ++i)
    if (!kept.contains(expired.text(i, 1)))
      tx.execute("DELETE FROM image_contents WHERE image_id = $1 AND manifest = $2",
                 {expired.text(i, 0), expired.text(i, 1)});
}

void drop_expired_blobs(db::Transaction& tx, Time before) {
  tx.execute("DELETE FROM image_loose_blobs WHERE held_at <= $1", {before});
}

std::vector<std::string> forget_manifests(db::Transaction& tx) {
  constexpr std::string_view kNobodys =
      "SELECT digest FROM image_manifests m WHERE NOT EXISTS "
      "(SELECT 1 FROM image_contents c WHERE c.manifest = m.digest)";
  const auto blobs =
      tx.query("SELECT DISTINCT digest FROM image_blobs WHERE manifest IN (" + text(kNobodys) + ")");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < blobs.size(); ++i) out.push_back(blobs.text(i, 0));
  tx.execute("DELETE FROM image_blobs WHERE manifest IN (" + text(kNobodys) + ")");
  tx.execute("DELETE FROM image_manifests WHERE digest IN (" + text(kNobodys) + ")");
  return out;
}

bool blob_in_use(db::Transaction& tx, std::string_view digest) {
  return !tx.query(
                "SELECT manifest FROM image_blobs WHERE digest = $1 UNION ALL "
                "SELECT name FROM image_loose_blobs WHERE digest = $1 UNION ALL "
                "SELECT name FROM image_import_entries WHERE digest = $1 LIMIT 1",
                {text(digest)})
              .empty();
}

}  // namespace lathe::images::store
