#include "images/images_service.h"

#include <algorithm>

#include "base/log.h"
#include "images/contents_store.h"
#include "images/export_archive.h"
#include "images/registry/registry.h"
#include "images/registry/registry_store.h"

namespace lathe::images {

namespace {

constexpr std::int64_t kShownImports = 20;
constexpr std::size_t kMostNames = 20;

using store::Status;

Error no_such_image(std::string_view id) {
  return not_found({"镜像", "image"}, id);
}

std::string_view status_name(std::int64_t status) {
  switch (static_cast<Status>(status)) {
    case Status::empty:
      return "待上传";
    case Status::ready:
      return "成功";
    case Status::importing:
      return "上传中";
    case Status::failed:
      break;
  }
  return "失败";
}

std::string_view status_word(std::int64_t status) {
  constexpr std::string_view kWords[] = {"empty", "ready", "importing", "failed"};
  return kWords[std::clamp<std::int64_t>(status, 0, 3)];
}

std::optional<std::string> reason(Language language, const std::string& zh, const std::string& en) {
  if (zh.empty()) return std::nullopt;
  return language == Language::zh ? zh : en;
}

std::int64_t percent(const Importer::Progress& progress) {
  if (progress.total == 0) return 0;
  return static_cast<std::int64_t>(std::min<std::uint64_t>(99, progress.done * 100 / progress.total));
}

Error being_imported(const std::string& tag, std::string_view field) {
  return {Code::failed_precondition,
          {"该标签正在上传中：" + tag, "this tag is being imported already: " + tag},
          {{std::string(field), {"正在上传中", "is being imported"}}}};
}

/// The documented imageName of 2.3 is called an array in the table and a string in the example: both are
/// read.
Result<std::vector<std::string>> name_filter(const Json& value) {
  std::vector<std::string> names;
  auto add = [&](const Json& item) {
    const auto* text = item.if_string();
    if (!text) return item.is_null();
    if (!text->empty()) names.emplace_back(*text);
    return true;
  };
  const auto* list = value.if_array();
  bool fine = list ? list->size() <= kMostNames : add(value);
  if (list)
    for (const Json& item : *list) fine = fine && add(item);
  if (!fine)
    return invalid_field("imageName", {"应为字符串或字符串数组", "must be a string or a list of strings"});
  return names;
}

}  // namespace

Result<std::unique_ptr<Images>> Images::open(db::Database& db, accounts::Accounts& accounts,
                                             files::Files& files, accounts::Audit& audit, IdSource& ids,
                                             const Clock& clock, Options options) {
  auto images = std::make_unique<ImagesService>(db, accounts, files, audit, ids, clock, std::move(options));
  TRY(images->construct());
  return std::unique_ptr<Images>(std::move(images));
}

Result<void> ImagesService::construct() {
  store_ = TRY(BlobStore::open(options_.store_directory));
  uploads_ = TRY(Uploads::open(db_, files_, *store_, ids_, clock_));
  sweeper_ = std::make_unique<Sweeper>(db_, *store_, clock_, options_);
  sweeper_->also([this](Time before) { return uploads_->drop_expired(before); });
  TRY(sweeper_->start());
  importer_ = std::make_unique<Importer>(db_, files_, *store_, *uploads_, clock_, options_);
  importer_->on_unused([this](const std::vector<std::string>& digests) { sweeper_->collect(digests); });
  importer_->on_change([this](std::string_view image_id) { changed(image_id); });
  accounts_.guard_deletion([](db::Transaction& tx, std::string_view user_id) -> Result<void> {
    if (!store::has_images(tx, user_id)) return {};
    return Error{Code::failed_precondition,
                 {"该用户还有镜像，请先删除", "the user still has images; delete them first"}};
  });
  return {};
}

Result<void> ImagesService::create(http::Call& call, const wire::NewImage& in) {
  store::ImageRow row;
  row.user_id = TRY(accounts_.acting_for(call.caller, in.userId, "userId"));
  row.id = call.new_id();
  row.name = in.imageName;
  row.icon = in.imageIcon;
  row.overview = in.imageOverView;
  row.labels = in.imageLabel;
  row.description = in.imageDescribe;
  row.created_at = row.updated_at = clock_.now();
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    if (store::image(tx, row.id)) return {};  // done before, by the same Idempotency-Key
    if (row.name == kHostImage || store::own_image_named(tx, row.user_id, row.name))
      return Error{Code::already_exists,
                   {"镜像名称已存在：" + row.name, "there is an image of this name already: " + row.name},
                   {{"imageName", {"已存在", "is taken"}}}};
    store::add_image(tx, row);
    audit_.record(tx, call, "image.create", "image", row.id, row.name);
    return {};
  });
}

Result<void> ImagesService::begin_import(http::Call& call, const wire::NewImport& in) {
  const std::string user_id = TRY(accounts_.acting_for(call.caller, in.userId, "userId"));
  const Path path = TRY(Path::parse(in.fileUrl, "fileUrl"));
  const Directory root = TRY(files_.root({user_id, files::Scope::private_files}));
  TRY(root.open_file(path));  // what can be known now is told now
  store::ImportRow row;
  row.id = call.new_id();
  row.user_id = user_id;
  row.tag = in.imageTag;
  row.file_path = path.text();
  row.created_at = clock_.now();
  bool repeated = false;
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    repeated = store::import(tx, row.id).has_value();
    if (repeated) return {};
    const bool by_id = !in.imageId.empty();
    const auto image =
        by_id ? store::image(tx, in.imageId) : store::own_image_named(tx, user_id, in.imageName);
    const std::string& named = by_id ? in.imageId : in.imageName;
    if (!image || image->user_id != user_id) {
      Error error = no_such_image(named);
      error.violations = {{by_id ? "imageId" : "imageName", {"不存在", "does not exist"}}};
      return error;
    }
    if (store::is_importing(tx, image->id, row.tag)) return being_imported(row.tag, "imageTag");
    row.image_id = image->id;
    store::add_import(tx, row);
    store::summarize(tx, image->id, clock_.now());
    audit_.record(tx, call, "image.import", "image", image->id, row.tag + " " + row.file_path);
    return {};
  }));
  if (!repeated) importer_->add(row);
  return {};
}

Result<wire::PullOut> ImagesService::begin_pull(http::Call& call, const wire::NewPull& in) {
  const std::string user_id = TRY(accounts_.acting_for(call.caller, in.userId, "userId"));
  const auto remote = TRY(pull::parse_remote(in.reference));
  const pull::Rules rules{options_.registries, options_.insecure_registries};
  if (!rules.may_pull_from(remote.authority))
    return about("reference", {Code::permission_denied,
                               {"管理员未允许从此仓库拉取：" + remote.authority,
                                "the administrator does not allow pulls from " + remote.authority}});
  const std::string name = in.name.empty() ? remote.repository : in.name;
  if (name == kHostImage)
    return Error{Code::already_exists,
                 {"名称已保留：" + name, "the name is the platform's own: " + name},
                 {{"name", {"已保留", "is taken"}}}};
  store::ImportRow row;
  row.id = call.new_id();
  row.user_id = user_id;
  row.tag = !in.tag.empty() ? in.tag : remote.tag.empty() ? std::string(kDefaultTag) : remote.tag;
  row.reference = remote.text();
  row.with_credentials = !in.username.empty() || !in.password.empty();
  row.created_at = clock_.now();
  const auto begun = TRY(db_.write([&](db::Transaction& tx) -> Result<std::optional<store::ImportRow>> {
    if (auto before = store::import(tx, row.id)) return before;
    auto image = store::own_image_named(tx, user_id, name);
    if (!image) {
      image.emplace();
      image->id = ids_.next();
      image->user_id = user_id;
      image->name = name;
      image->created_at = image->updated_at = clock_.now();
      store::add_image(tx, *image);
      audit_.record(tx, call, "image.create", "image", image->id, name);
    } else if (store::is_importing(tx, image->id, row.tag)) {
      return being_imported(row.tag, "tag");
    }
    row.image_id = image->id;
    store::add_import(tx, row);
    store::summarize(tx, image->id, clock_.now());
    audit_.record(tx, call, "image.pull", "image", image->id, row.tag + " " + row.reference);
    return std::optional<store::ImportRow>();
  }));
  if (!begun) importer_->add(row, {in.username, in.password});
  const store::ImportRow& shown = begun ? *begun : row;
  return wire::PullOut{shown.image_id, shown.id, name, shown.tag, shown.reference};
}

Result<http::Page<wire::ImageItem>> ImagesService::list(http::Call& call, const wire::ListQuery& query) {
  store::ListFilter filter;
  filter.user_id = TRY(accounts_.listing_for(call.caller, query.userId, "userId"));
  filter.names = TRY(name_filter(query.imageName));
  std::vector<store::ImageRow> rows;
  const std::int64_t total = TRY(db_.read([&](db::Transaction& tx) -> Result<std::int64_t> {
    rows = store::list_images(tx, filter, query.size(), query.offset());
    return store::count_images(tx, filter);
  }));
  std::vector<wire::ImageItem> items;
  for (const auto& row : rows) {
    wire::ImageItem item;
    item.imageName = row.name;
    item.imageDescribe = row.description;
    item.updateTime = row.updated_at;
    item.imageStatus = row.status;
    item.imageOverView = row.overview;
    if (!row.labels.empty()) item.imageLabel = row.labels;
    item.tagNum = row.tag_count;
    item.createTime = row.created_at;
    item.user_id = row.user_id;
    item.imageIcon = row.icon;
    item.statusName = status_name(row.status);
    item.id = row.id;
    item.imageSize = size_for_people(static_cast<std::uint64_t>(row.latest_size));
    item.imageTag = row.latest_tag;
    item.failReason = reason(call.request.language, row.fail_zh, row.fail_en);
    if (row.status == static_cast<std::int64_t>(Status::importing))
      item.progress = percent(importer_->progress_of_image(row.id).value_or(Importer::Progress{}));
    items.push_back(std::move(item));
  }
  return query.page(total, std::move(items));
}

Result<store::ImageRow> ImagesService::own(db::Transaction& tx, const http::Identity& caller,
                                           std::string_view id) {
  auto row = store::image(tx, id);
  if (!row || (row->user_id != caller.user_id && !caller.admin)) return no_such_image(id);
  if (row->user_id.empty())
    return Error{Code::permission_denied,
                 {"平台自带的镜像不能修改", "the platform's own image cannot be changed"}};
  return *std::move(row);
}

Result<wire::ImageOut> ImagesService::describe(db::Transaction& tx, const store::ImageRow& row,
                                               Language language) {
  wire::ImageOut out;
  out.id = row.id;
  out.userId = row.user_id;
  out.name = row.name;
  out.description = row.description;
  out.overview = row.overview;
  out.icon = row.icon;
  out.status = status_word(row.status);
  out.labels = row.labels;
  out.isPublic = row.is_public;
  out.failReason = reason(language, row.fail_zh, row.fail_en);
  out.createdAt = row.created_at;
  out.updatedAt = row.updated_at;
  for (const auto& tag : store::tags(tx, row.id))
    out.tags.push_back({tag.tag, tag.manifest, tag.size, tag.created_at, tag.updated_at});
  for (const auto& import : store::imports(tx, row.id, kShownImports)) {
    wire::ImportOut shown{import.id,
                          import.tag,
                          import.file_path,
                          import.reference,
                          import.state,
                          reason(language, import.fail_zh, import.fail_en),
                          0,
                          import.total,
                          import.created_at,
                          import.ended_at};
    if (const auto progress = importer_->progress(import.id)) {
      shown.bytesDone = static_cast<std::int64_t>(progress->done);
      shown.bytesTotal = static_cast<std::int64_t>(progress->total);
    } else if (import.state == "succeeded") {
      shown.bytesDone = import.total;
    }
    out.imports.push_back(std::move(shown));
  }
  return out;
}

Result<wire::ImageOut> ImagesService::show(http::Call& call, const std::string& id) {
  return db_.read([&](db::Transaction& tx) -> Result<wire::ImageOut> {
    const auto row = store::image(tx, id);
    if (!row || (row->user_id != call.caller.user_id && !call.caller.admin && !row->is_public))
      return no_such_image(id);
    return describe(tx, *row, call.request.language);
  });
}

Result<wire::ImageOut> ImagesService::change(http::Call& call, const wire::ImagePatch& patch) {
  return db_.write([&](db::Transaction& tx) -> Result<wire::ImageOut> {
    store::ImageRow row = TRY(own(tx, call.caller, patch.id));
    if (patch.isPublic) row.is_public = *patch.isPublic;
    if (patch.description) row.description = *patch.description;
    if (patch.overview) row.overview = *patch.overview;
    if (patch.icon) row.icon = *patch.icon;
    if (patch.labels) row.labels = *patch.labels;
    row.updated_at = clock_.now();
    store::update_image(tx, row);
    audit_.record(tx, call, "image.change", "image", row.id);
    return describe(tx, row, call.request.language);
  });
}

Result<void> ImagesService::check_guards(db::Transaction& tx, std::string_view image_id,
                                         std::string_view tag) {
  for (const auto& guard : guards_) TRY(guard(tx, image_id, tag));
  return {};
}

Result<void> ImagesService::remove(http::Call& call, const std::string& id) {
  std::vector<std::string> unused;
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    const auto row = TRY(own(tx, call.caller, id));
    TRY(check_guards(tx, id, ""));
    unused = store::drop_loose_blobs(tx, row.user_id, row.name);
    store::remove_image(tx, id);
    for (auto& digest : store::forget_manifests(tx)) unused.push_back(std::move(digest));
    audit_.record(tx, call, "image.delete", "image", id, row.name);
    return {};
  }));
  importer_->cancel(id);
  sweeper_->collect(unused);
  sweeper_->index_changed();
  return {};
}

Result<void> ImagesService::remove_tag(http::Call& call, const wire::ByTag& which) {
  std::vector<std::string> unused;
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    TRY(own(tx, call.caller, which.id));
    if (!store::tag(tx, which.id, which.tag)) return not_found({"镜像标签", "image tag"}, which.tag);
    TRY(check_guards(tx, which.id, which.tag));
    store::remove_tag(tx, which.id, which.tag);
    store::drop_contents(tx, which.id, store::find_unreachable(tx, which.id, clock_.now()));
    store::summarize(tx, which.id, clock_.now());
    unused = store::forget_manifests(tx);
    audit_.record(tx, call, "image.delete_tag", "image", which.id, which.tag);
    return {};
  }));
  sweeper_->collect(unused);
  sweeper_->index_changed();
  return {};
}

Result<std::unique_ptr<Export>> ImagesService::open_export(std::string_view digest, std::string_view name) {
  return images::open_export(*store_, digest, name);
}

Result<std::unique_ptr<http::Handler>> ImagesService::make_registry(RegistryOptions options) {
  return registry::Registry::make({db_, accounts_, audit_, ids_, clock_, *store_, *uploads_, *this},
                                  std::move(options));
}

}  // namespace lathe::images
