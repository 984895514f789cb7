#include "images/contents_store.h"
#include "images/images_service.h"
#include "images/oci.h"
#include "images/reference.h"
#include "images/registry/problem.h"
#include "images/registry/pushed_manifest.h"
#include "images/registry/registry.h"
#include "images/registry/registry_store.h"

namespace lathe::images::registry {

namespace {

/// The Content-Type without its parameters.
std::string_view media_type_of(const http::Request& request) {
  std::string_view type = request.headers.get("content-type");
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  return type;
}

/// What the manifest names must be there, and of the size it says: nobody gets at content, or around their
/// quota, by naming it.
Result<void> check_contents(db::Transaction& tx, const Repository& repository, const PushedManifest& pushed) {
  const auto check = [](const Blob& blob, const std::optional<std::uint64_t>& size) -> Result<void> {
    if (!size) return no_content(blob.digest);
    if (*size == blob.size) return {};
    return wrong_manifest({"大小不符：" + blob.digest, "says a wrong size of " + blob.digest});
  };
  for (const Blob& blob : pushed.needed) TRY(check(blob, blob_in(tx, repository, blob.digest)));
  if (pushed.contents.kind != Contents::Kind::index) return {};
  for (std::size_t i = 1; i < pushed.contents.blobs.size(); ++i) {
    const Blob& child = pushed.contents.blobs[i];
    const bool there = repository.image && store::manifest_of(tx, repository.image->id, child.digest);
    TRY(check(child, there ? std::optional(store::document_size(tx, child.digest)) : std::nullopt));
  }
  return {};
}

/// What a tag of it takes: of an index, with all of its images.
std::int64_t size_of_tag(db::Transaction& tx, const PushedManifest& pushed) {
  auto size = static_cast<std::int64_t>(pushed.contents.size);
  for (const auto& child : pushed.children)
    if (const auto row = store::manifest(tx, child)) size += row->size;
  return size;
}

}  // namespace

std::optional<std::uint64_t> blob_in(db::Transaction& tx, const Repository& repository,
                                     std::string_view digest) {
  if (repository.writable)
    if (const auto size = store::loose_blob(tx, repository.owner_id, repository.name, digest)) return size;
  if (!repository.image) return std::nullopt;
  return store::blob_of(tx, repository.image->id, digest);
}

Registry::Answer Registry::get_manifest(http::Request&, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  if (!repository.image) return no_manifest(place.reference);
  const bool by_digest = place.reference.find(':') != std::string::npos;
  if (by_digest && !is_digest(place.reference)) return wrong_digest(place.reference);
  const auto row = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::optional<store::ManifestRow>> {
    if (by_digest) return store::manifest_of(tx, repository.image->id, place.reference);
    const auto tag = store::tag(tx, repository.image->id, place.reference);
    return tag ? store::manifest(tx, tag->manifest) : std::nullopt;
  }));
  if (!row) return no_manifest(place.reference);
  http::Response response =
      http::Response::text(200, TRY(p_.store.read(row->digest, oci::kMaxDocument)), row->media_type);
  response.headers.set("Docker-Content-Digest", row->digest);
  response.headers.set("ETag", "\"" + row->digest + "\"");
  return response;
}

Registry::Answer Registry::put_manifest(http::Request& request, const Place& place, const Visit& visit) {
  const bool by_digest = place.reference.find(':') != std::string::npos;
  if (!by_digest)
    if (auto wrong = wrong_tag(place.reference)) return wrong_manifest(*wrong);
  const PushedManifest pushed = TRY(read_manifest(request.body, media_type_of(request)));
  const Contents& contents = pushed.contents;
  const std::string& digest = contents.manifest.digest;
  if (by_digest && place.reference != digest)
    return is_digest(place.reference)
               ? about("digest", {Code::invalid_argument,
                                  {"内容的摘要是 " + digest, "the content's digest is " + digest}})
               : wrong_digest(place.reference);
  if (visit.repository.name == kHostImage)
    return Error{Code::permission_denied, {"名称已保留", "this name is the platform's own"}};

  const auto reservation = TRY(p_.uploads.reserve(visit.repository.owner_id, request.body.size()));
  BlobStore::Lease lease(p_.store);
  TRY(p_.store.put(request.body, lease));
  TRY(p_.store.sync());
  std::string image_id;
  TRY(p_.db.write([&](db::Transaction& tx) -> Result<void> {
    const Time now = p_.clock.now();
    Repository repository = visit.repository;
    repository.image = store::own_image_named(tx, repository.owner_id, repository.name);
    TRY(check_contents(tx, repository, pushed));
    if (!repository.image) {
      store::ImageRow row;
      row.id = p_.ids.next();
      row.user_id = repository.owner_id;
      row.name = repository.name;
      row.created_at = row.updated_at = now;
      store::add_image(tx, row);
      p_.audit.record(tx, visit.caller.who, request.peer, "image.create", "image", row.id, row.name);
      repository.image = row;
    }
    image_id = repository.image->id;
    store::add_contents(tx, image_id, contents, now);
    if (!by_digest) store::set_tag(tx, image_id, place.reference, digest, size_of_tag(tx, pushed), now);
    store::find_unreachable(tx, image_id, now);
    store::summarize(tx, image_id, now);
    p_.audit.record(tx, visit.caller.who, request.peer, "image.push", "image", image_id,
                    by_digest ? digest : place.reference + " " + digest);
    return {};
  }));
  p_.images.changed(image_id);
  http::Response response = http::Response::text(201, "");
  response.headers.set("Location", "/v2/" + visit.repository.path + "/manifests/" + digest);
  response.headers.set("Docker-Content-Digest", digest);
  if (!contents.subject.empty()) response.headers.set("OCI-Subject", contents.subject);
  return response;
}

Registry::Answer Registry::delete_manifest(http::Request& request, const Place& place, const Visit& visit) {
  if (!visit.repository.image) return no_manifest(place.reference);
  const std::string& id = visit.repository.image->id;
  const bool by_digest = place.reference.find(':') != std::string::npos;
  std::vector<std::string> unused;
  TRY(p_.db.write([&](db::Transaction& tx) -> Result<void> {
    const Time now = p_.clock.now();
    if (by_digest) {
      if (!store::manifest_of(tx, id, place.reference)) return no_manifest(place.reference);
      if (p_.images.is_used(tx, place.reference))
        return Error{Code::failed_precondition,
                     {"清单正被推理服务使用", "a service runs from this manifest"}};
      for (const auto& tag : store::tags_of(tx, id, place.reference))
        TRY(p_.images.check_guards(tx, id, tag));
      store::drop_contents(tx, id, {place.reference});
    } else {
      if (!store::tag(tx, id, place.reference)) return no_manifest(place.reference);
      TRY(p_.images.check_guards(tx, id, place.reference));
      store::remove_tag(tx, id, place.reference);
    }
    store::find_unreachable(tx, id, now);
    store::summarize(tx, id, now);
    unused = store::forget_manifests(tx);
    p_.audit.record(tx, visit.caller.who, request.peer, "image.delete_tag", "image", id, place.reference);
    return {};
  }));
  p_.images.sweeper().collect(unused);
  p_.images.changed(id);
  return http::Response::text(202, "");
}

}  // namespace lathe::images::registry
