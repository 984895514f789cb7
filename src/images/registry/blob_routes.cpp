#include <fmt/format.h>

#include <charconv>

#include "images/contents_store.h"
#include "images/images_service.h"
#include "images/reference.h"
#include "images/registry/problem.h"
#include "images/registry/registry.h"
#include "images/registry/registry_store.h"

namespace lathe::images::registry {

namespace {

constexpr Duration kRenewEvery = std::chrono::hours{1};  // what a pusher asked for stays on for longer

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

struct Slice {
  std::uint64_t offset = 0, length = 0;
};
enum class Asked { whole, part, impossible };

/// One range of bytes (RFC 9110 §14); anything else is ignored, as it allows.
Asked read_range(std::string_view header, std::uint64_t size, Slice& out) {
  constexpr std::string_view kBytes = "bytes=";
  if (!header.starts_with(kBytes) || header.find(',') != std::string_view::npos) return Asked::whole;
  header.remove_prefix(kBytes.size());
  const auto dash = header.find('-');
  if (dash == std::string_view::npos) return Asked::whole;
  const auto first = number(header.substr(0, dash)), last = number(header.substr(dash + 1));
  if (!first) {
    if (dash != 0 || !last) return Asked::whole;
    out.length = std::min(*last, size);
    out.offset = size - out.length;
    return out.length == 0 ? Asked::impossible : Asked::part;
  }
  if (!last && dash + 1 != header.size()) return Asked::whole;
  if (last && *last < *first) return Asked::whole;
  if (*first >= size) return Asked::impossible;
  out.offset = *first;
  out.length = (last ? std::min(*last, size - 1) : size - 1) - *first + 1;
  return Asked::part;
}

/// `first-last` of a chunk, with or without the unit.
std::optional<std::pair<std::uint64_t, std::uint64_t>> read_content_range(std::string_view header) {
  if (header.starts_with("bytes ")) header.remove_prefix(6);
  header = header.substr(0, header.find('/'));
  const auto dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = number(header.substr(0, dash)), last = number(header.substr(dash + 1));
  if (!first || !last || *last < *first) return std::nullopt;
  return std::pair(*first, *last);
}

http::Response created(const Repository& repository, std::string_view digest) {
  http::Response response = http::Response::text(201, "");
  response.headers.set("Location", "/v2/" + repository.path + "/blobs/" + std::string(digest));
  response.headers.set("Docker-Content-Digest", std::string(digest));
  return response;
}

http::Response upload_state(int status, const Repository& repository, const Uploads::Held& upload) {
  http::Response response = http::Response::text(status, "");
  response.headers.set("Location", "/v2/" + repository.path + "/blobs/uploads/" + upload.id());
  response.headers.set("Docker-Upload-Uuid", upload.id());
  response.headers.set("Range", fmt::format("0-{}", upload.size() == 0 ? 0 : upload.size() - 1));
  return response;
}

}  // namespace

Registry::Answer Registry::get_blob(http::Request& request, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  if (!is_digest(place.reference)) return wrong_digest(place.reference);
  bool renew = false;
  const auto size = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::optional<std::uint64_t>> {
    const auto found = blob_in(tx, repository, place.reference);
    // Who is about to push looks what need not be sent: it must still be there when the manifest comes.
    if (found && repository.writable && request.method == http::Method::head &&
        visit.caller.within("repository", repository.path, "push")) {
      const auto since = store::loose_since(tx, repository.owner_id, repository.name, place.reference);
      renew = !since || p_.clock.now() - *since > kRenewEvery;
    }
    return found;
  }));
  if (!size) return no_blob(place.reference);
  if (renew)
    TRY(p_.db.write([&](db::Transaction& tx) -> Result<void> {
      if (!blob_in(tx, repository, place.reference)) return no_blob(place.reference);
      store::hold_loose_blob(tx, repository.owner_id, repository.name, {place.reference, *size},
                             p_.clock.now());
      return {};
    }));
  const std::string etag = "\"" + place.reference + "\"";
  http::Response response;
  response.headers.set("Docker-Content-Digest", place.reference);
  response.headers.set("ETag", etag);
  response.headers.set("Accept-Ranges", "bytes");
  response.headers.set("Cache-Control", "private, max-age=31536000, immutable");
  if (request.headers.get("if-none-match").find(etag) != std::string_view::npos) {
    response.status = 304;
    return response;
  }
  Slice slice{0, *size};
  const Asked asked = read_range(request.headers.get("range"), *size, slice);
  if (asked == Asked::impossible) {
    http::Response refused = problem(
        request, {Code::invalid_argument, {"范围超出内容", "the range is beyond the blob"}, {{"size", {}}}});
    refused.status = 416;
    refused.headers.set("Content-Range", fmt::format("bytes */{}", *size));
    return refused;
  }
  if (asked == Asked::part) {
    response.status = 206;
    response.headers.set("Content-Range",
                         fmt::format("bytes {}-{}/{}", slice.offset, slice.offset + slice.length - 1, *size));
  }
  response.headers.set("Content-Type", "application/octet-stream");
  Fd blob = TRY(p_.store.open_blob(place.reference));
  response.body = http::FileBody{http::own_fd(blob.release()), slice.offset, slice.length};
  return response;
}

Registry::Answer Registry::delete_blob(http::Request& request, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  if (!is_digest(place.reference)) return wrong_digest(place.reference);
  TRY(p_.db.write([&](db::Transaction& tx) -> Result<void> {
    if (repository.image) {
      const std::string user = store::needed_by(tx, repository.image->id, place.reference);
      if (!user.empty())
        return Error{Code::method_not_allowed,
                     {"清单 " + user + " 仍在使用，请先删除它",
                      "the manifest " + user + " needs it; delete that first"}};
    }
    if (!store::drop_loose_blob(tx, repository.owner_id, repository.name, place.reference))
      return no_blob(place.reference);
    p_.audit.record(tx, visit.caller.who, request.peer, "image.delete_blob", "blob", place.reference,
                    repository.path);
    return {};
  }));
  p_.images.sweeper().collect({place.reference});
  return http::Response::text(202, "");
}

Registry::Answer Registry::begin_upload(http::Request& request, const Place&, const Visit& visit) {
  const Repository& repository = visit.repository;
  if (const auto digest = request.query_value("mount")) {
    if (!is_digest(*digest)) return wrong_digest(*digest);
    http::Response mounted = TRY(mount(request, visit, std::string(*digest)));
    if (mounted.status == 201) return mounted;
  }
  const auto digest = request.query_value("digest");
  if (digest && !is_digest(*digest)) return wrong_digest(*digest);
  auto upload = TRY(p_.uploads.begin(repository.owner_id, repository.name));
  if (!digest) return upload_state(202, repository, upload);
  TRY(upload.append(*request.stream));
  return finish_upload(visit, upload, *digest);
}

/// 201 where the blob could be taken over, else anything: the client then sends it.
Registry::Answer Registry::mount(http::Request& request, const Visit& visit, const std::string& digest) {
  const auto from = request.query_value("from");
  if (!from || !visit.caller.within("repository", *from, "pull")) return http::Response();
  auto source = this->repository(*from, visit.caller.who, false);
  if (!source) return http::Response();
  const Repository& target = visit.repository;
  bool counted = false;  // among what its user has already
  const auto size = TRY(p_.db.read([&](db::Transaction& tx) -> Result<std::optional<std::uint64_t>> {
    counted = store::user_has_blob(tx, target.owner_id, digest);
    return blob_in(tx, *source, digest);
  }));
  if (!size) return http::Response();
  auto reservation = TRY(p_.uploads.reserve(target.owner_id, counted ? 0 : *size));
  const bool held = TRY(p_.db.write([&](db::Transaction& tx) -> Result<bool> {
    if (!blob_in(tx, *source, digest)) return false;
    store::hold_loose_blob(tx, target.owner_id, target.name, {digest, *size}, p_.clock.now());
    return true;
  }));
  return held ? created(target, digest) : http::Response();
}

Registry::Answer Registry::show_upload(http::Request&, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  const auto upload = TRY(p_.uploads.find(place.reference, repository.owner_id, repository.name));
  return upload_state(204, repository, upload);
}

/// 200 where all went well.
Registry::Answer Registry::take_body(http::Request& request, const Visit& visit, Uploads::Held& upload) {
  const std::string_view header = request.headers.get("content-range");
  if (!header.empty()) {
    const auto range = read_content_range(header);
    const auto length = request.stream->length();
    if (!range || (length && *length != range->second - range->first + 1))
      return about("size",
                   {Code::invalid_argument, {"Content-Range 有误", "Content-Range does not fit the body"}});
    if (range->first != upload.size()) {
      http::Response refused = problem(
          request, about("upload", {Code::invalid_argument,
                                    {"应从第 " + std::to_string(upload.size()) + " 字节继续",
                                     "the upload goes on at byte " + std::to_string(upload.size())}}));
      const http::Response state = upload_state(416, visit.repository, upload);
      refused.status = 416;
      for (const char* name : {"Location", "Range", "Docker-Upload-Uuid"})
        refused.headers.set(name, std::string(state.headers.get(name)));
      return refused;
    }
  }
  TRY(upload.append(*request.stream));
  return http::Response();
}

Registry::Answer Registry::patch_upload(http::Request& request, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  auto upload = TRY(p_.uploads.find(place.reference, repository.owner_id, repository.name));
  http::Response taken = TRY(take_body(request, visit, upload));
  return taken.status == 200 ? upload_state(202, repository, upload) : std::move(taken);
}

Registry::Answer Registry::put_upload(http::Request& request, const Place& place, const Visit& visit) {
  const auto digest = request.query_value("digest");
  if (!digest || !is_digest(*digest)) return wrong_digest(digest.value_or(""));
  auto upload = TRY(p_.uploads.find(place.reference, visit.repository.owner_id, visit.repository.name));
  http::Response taken = TRY(take_body(request, visit, upload));
  return taken.status == 200 ? finish_upload(visit, upload, *digest) : Answer(std::move(taken));
}

Registry::Answer Registry::finish_upload(const Visit& visit, Uploads::Held& upload, std::string_view digest) {
  const Repository& repository = visit.repository;
  BlobStore::Lease lease(p_.store);
  const Blob blob = TRY(upload.finish(digest, lease));
  TRY(p_.db.write([&](db::Transaction& tx) -> Result<void> {
    store::hold_loose_blob(tx, repository.owner_id, repository.name, blob, p_.clock.now());
    return {};
  }));
  return created(repository, blob.digest);
}

Registry::Answer Registry::cancel_upload(http::Request&, const Place& place, const Visit& visit) {
  const Repository& repository = visit.repository;
  auto upload = TRY(p_.uploads.find(place.reference, repository.owner_id, repository.name));
  TRY(upload.cancel());
  return http::Response::text(204, "");
}

}  // namespace lathe::images::registry
