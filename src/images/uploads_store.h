#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "db/database.h"

/// The rows of pushes under way.
namespace lathe::images::store {

struct UploadRow {
  std::string id, user_id, name;
  Time touched_at{};
};

void add_upload(db::Transaction& tx, const UploadRow& row);
std::optional<UploadRow> upload(db::Transaction& tx, std::string_view id);
/// The one for that name that was begun first.
std::optional<UploadRow> upload_named(db::Transaction& tx, std::string_view user_id, std::string_view name);
std::int64_t count_uploads(db::Transaction& tx, std::string_view user_id);
std::vector<std::string> upload_ids(db::Transaction& tx);
std::vector<UploadRow> uploads_until(db::Transaction& tx, Time touched);
void touch_upload(db::Transaction& tx, std::string_view id, Time now);
void remove_upload(db::Transaction& tx, std::string_view id);

}  // namespace lathe::images::store
