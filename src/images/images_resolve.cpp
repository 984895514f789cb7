#include "images/contents_store.h"
#include "images/images_service.h"
#include "images/oci.h"
#include "images/reference.h"

namespace lathe::images {

namespace {

using store::Status;

bool is_id(std::string_view text) {
  return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Error no_such_image(std::string_view text, std::string_view field) {
  Error error = not_found({"镜像", "image"}, text);
  error.violations = {{std::string(field), {"镜像不存在", "names no image"}}};
  return error;
}

}  // namespace

Result<ImageRef> ImagesService::reference(db::Transaction& tx, const store::ImageRow& row,
                                          std::string_view tag, std::string_view field) {
  ImageRef out;
  out.id = row.id;
  out.name = row.name;
  if (row.user_id.empty()) return out;
  out.kind = ImageRef::Kind::oci;
  // No tag said: `latest` where there is one, as everywhere; else the newest.
  out.tag = !tag.empty() ? tag : kDefaultTag;
  auto found = store::tag(tx, row.id, out.tag);
  if (!found && tag.empty() && !row.latest_tag.empty()) {
    out.tag = row.latest_tag;
    found = store::tag(tx, row.id, out.tag);
  }
  if (found) {
    out.digest = found->manifest;
    out.size = static_cast<std::uint64_t>(found->size);
    return out;
  }
  const bool importing = tag.empty() ? row.status == static_cast<std::int64_t>(Status::importing)
                                     : store::is_importing(tx, row.id, tag);
  if (importing) {
    out.ready = false;
    return out;
  }
  const std::string name = row.name + ":" + out.tag;
  Text why{"镜像尚未上传：" + name, "the image has not been imported: " + name};
  if (row.status == static_cast<std::int64_t>(Status::failed))
    why = {"镜像上传失败：" + name + "：" + row.fail_zh,
           "the import of image " + name + " failed: " + row.fail_en};
  return Error{Code::failed_precondition, why, {{std::string(field), {"不可用", "cannot be used"}}}};
}

Result<ImageRef> ImagesService::resolve(std::string_view user_id, bool admin, std::string_view text,
                                        std::string_view field) {
  if (text.empty()) text = kHostImage;
  // The built-in image: most jobs name it, nobody can take its name, and it never changes.
  const bool host = text == kHostImage;
  if (host) {
    const std::lock_guard lock(host_mutex_);
    if (host_) return *host_;
  }
  ImageRef ref = TRY(db_.read([&](db::Transaction& tx) -> Result<ImageRef> {
    NameAndTag name{text, {}};
    auto row = is_id(text) ? store::image(tx, text) : std::nullopt;
    if (row && !row->is_public && row->user_id != user_id && !admin) row.reset();
    if (!row) {
      name = split_reference(text);
      row = store::image_named(tx, user_id, name.name);
    }
    if (!row) return no_such_image(text, field);
    return reference(tx, *row, name.tag, field);
  }));
  if (!ref.digest.empty()) TRY(complete(ref, field));
  if (host) {
    const std::lock_guard lock(host_mutex_);
    host_ = ref;
  }
  return ref;
}

Result<void> ImagesService::complete(ImageRef& ref, std::string_view field) {
  const auto unusable = [&](Text why) {
    return Error{
        Code::failed_precondition, std::move(why), {{std::string(field), {"不可用", "cannot be used"}}}};
  };
  const std::string name = ref.name + ":" + ref.tag;
  for (int depth = 0; depth < oci::kMaxIndexDepth; ++depth) {
    const auto row = TRY(db_.read([&](db::Transaction& tx) -> Result<std::optional<store::ManifestRow>> {
      return store::manifest_of(tx, ref.id, ref.digest);
    }));
    if (!row) break;
    if (row->kind == "artifact")
      return unusable({name + " 不是可运行的镜像", name + " is not an image that can be run"});
    if (row->kind == "image") {
      ref.size = static_cast<std::uint64_t>(row->size);
      ref.config = TRY(oci::process_of(TRY(store_->read(row->config_digest, oci::kMaxDocument))));
      return {};
    }
    const auto index = TRY(json::parse_as<oci::Index>(TRY(store_->read(ref.digest, oci::kMaxDocument))));
    const auto* mine = oci::for_this_machine(index);
    if (!mine) break;
    ref.digest = mine->digest;
  }
  return unusable({name + " 没有适用于本机（linux/" + std::string(oci::own_architecture()) + "）的镜像",
                   name + " has no image for this machine, linux/" + std::string(oci::own_architecture())});
}

}  // namespace lathe::images
