#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "db/database.h"

/// The tables of datasets: all of the feature's SQL.
namespace lathe::datasets::store {

struct DatasetRow {
  std::string id, user_id, name, description;
  bool is_public = false;
  Time created_at{}, updated_at{};
};
void fields(Fields& f, DatasetRow& r);

struct VersionRow {
  std::string id, dataset_id, version, description, scope, path;
  std::string state = "measuring";  ///< measuring, ready, missing: what is known of its size
  std::int64_t size = 0, file_count = 0;
  Time created_at{};
};
void fields(Fields& f, VersionRow& r);

struct Filter {
  std::optional<std::string> user_id;  ///< whose, with the public ones; absent: everybody's
  std::string name;                    ///< contained in the name; "": any
  std::string before;                  ///< a cursor: ids smaller than this; "": from the newest
  std::int64_t limit = 50;
};
/// Newest first.
std::vector<DatasetRow> list(db::Transaction& tx, const Filter& filter);
std::optional<DatasetRow> dataset(db::Transaction& tx, std::string_view id);
std::optional<DatasetRow> own_named(db::Transaction& tx, std::string_view user_id, std::string_view name);
/// The user's own, else a public one.
std::optional<DatasetRow> named(db::Transaction& tx, std::string_view user_id, std::string_view name);
void add(db::Transaction& tx, const DatasetRow& row);
void update(db::Transaction& tx, const DatasetRow& row);
/// With its versions.
void remove(db::Transaction& tx, std::string_view id);
bool has_datasets(db::Transaction& tx, std::string_view user_id);

/// Newest first; `before` as in Filter.
std::vector<VersionRow> versions(db::Transaction& tx, std::string_view dataset_id, std::string_view before,
                                 std::int64_t limit);
std::int64_t count_versions(db::Transaction& tx, std::string_view dataset_id);
std::optional<VersionRow> version(db::Transaction& tx, std::string_view id);
std::optional<VersionRow> version_named(db::Transaction& tx, std::string_view dataset_id,
                                        std::string_view name);
void add_version(db::Transaction& tx, const VersionRow& row);
void remove_version(db::Transaction& tx, std::string_view id);
std::vector<std::string> unmeasured(db::Transaction& tx);
void set_measured(db::Transaction& tx, std::string_view id, std::string_view state, std::int64_t size,
                  std::int64_t file_count);

}  // namespace lathe::datasets::store
