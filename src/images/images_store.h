#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "db/database.h"
#include "images/oci.h"
#include "quotas/quotas.h"

/// The tables of images: all of the feature's SQL.
namespace lathe::images::store {

/// The documented imageStatus.
enum class Status : std::int64_t { empty = 0, ready = 1, importing = 2, failed = 3 };

struct ImageRow {
  std::string id, user_id, name, icon, overview;
  std::vector<std::string> labels;
  std::string description;
  bool is_public = false;
  std::int64_t status = 0;
  std::string fail_zh, fail_en;
  std::int64_t tag_count = 0;
  std::string latest_tag;
  std::int64_t latest_size = 0;
  Time created_at{}, updated_at{};
};
void fields(Fields& f, ImageRow& r);

struct TagRow {
  std::string image_id, tag, manifest;
  std::int64_t size = 0;
  Time created_at{}, updated_at{};
};
void fields(Fields& f, TagRow& r);

struct ImportRow {
  std::string id, image_id, user_id, tag, file_path;
  std::string reference;          ///< in another registry; then there is no file
  bool with_credentials = false;  ///< which only this run of the server has
  std::string state = "queued";
  std::string fail_zh, fail_en;
  std::int64_t total = 0;
  Time created_at{};
  std::optional<Time> ended_at;
};
void fields(Fields& f, ImportRow& r);

std::optional<ImageRow> image(db::Transaction& tx, std::string_view id);
/// The one that `user_id` means by a name: their own, else the platform's, else a public one.
std::optional<ImageRow> image_named(db::Transaction& tx, std::string_view user_id, std::string_view name);
std::optional<ImageRow> own_image_named(db::Transaction& tx, std::string_view user_id, std::string_view name);
void add_image(db::Transaction& tx, const ImageRow& row);
void update_image(db::Transaction& tx, const ImageRow& row);
/// With its tags and imports.
void remove_image(db::Transaction& tx, std::string_view id);
bool has_images(db::Transaction& tx, std::string_view user_id);

struct ListFilter {
  std::optional<std::string> user_id;  ///< whose, with the public ones; absent: everybody's
  std::vector<std::string> names;      ///< holds one of these; empty: any
};
std::int64_t count_images(db::Transaction& tx, const ListFilter& filter);
/// Newest first.
std::vector<ImageRow> list_images(db::Transaction& tx, const ListFilter& filter, std::int64_t limit,
                                  std::int64_t offset);

std::vector<TagRow> tags(db::Transaction& tx, std::string_view image_id);
std::optional<TagRow> tag(db::Transaction& tx, std::string_view image_id, std::string_view tag);
void remove_tag(db::Transaction& tx, std::string_view image_id, std::string_view tag);

void add_import(db::Transaction& tx, const ImportRow& row);
std::optional<ImportRow> import(db::Transaction& tx, std::string_view id);
std::vector<ImportRow> unfinished_imports(db::Transaction& tx);
bool is_importing(db::Transaction& tx, std::string_view image_id, std::string_view tag);
std::vector<ImportRow> imports(db::Transaction& tx, std::string_view image_id, std::int64_t limit);
void start_import(db::Transaction& tx, std::string_view id, std::int64_t total);
void set_import_total(db::Transaction& tx, std::string_view id, std::int64_t total);
void end_import(db::Transaction& tx, std::string_view id, const std::optional<Text>& failure, Time now);

/// Brings status, tags and size of the image's row up to date with its tags and imports.
void summarize(db::Transaction& tx, std::string_view image_id, Time now);

std::vector<oci::IndexEntry> index_entries(db::Transaction& tx);
/// Every blob counts once for a user, however many of their tags need it.
quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id);

}  // namespace lathe::images::store
