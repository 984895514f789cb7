#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "db/row.h"
#include "models/hyper_parameter.h"
#include "models/model_folder.h"
#include "models/models.h"
#include "quotas/quotas.h"

/// The tables of models. Every function runs inside the transaction it is given.
namespace lathe::models::store {

struct ModelRow {
  std::string id, user_id, name;
  std::string name_key;  ///< set by insert and update
  std::string description, type, developer;
  std::vector<HyperParameter> hyper_parameters;
  Time created_at{}, updated_at{};
};
void fields(Fields& f, ModelRow& row);

struct VersionRow {
  std::string id, model_id, user_id;
  std::string request_id;  ///< of the call that made it: the id of the first version of that call
  std::string version, description, label;
  std::int64_t source = 3;
  std::string image, image_id, image_tag;
  std::optional<std::int64_t> image_type, framework, framework_style;
  std::int64_t save_type = 2;
  std::string save_path, config_path;
  std::optional<std::int64_t> config_save_type;
  std::string train_task_version_id, llm_fine_tune_task_id;
  std::string training_output;  ///< what was asked of TrainingOutputs; "" for another source
  std::string pre_deploy_label, scale, model_structure;
  std::vector<HyperParameter> hyper_parameters;
  std::string metrics;
  std::string state;
  std::string failure_zh, failure_en;
  std::string source_root;                           ///< host folder to copy from; "": the user's own root
  std::string source_path;                           ///< beneath it
  std::string folder;                                ///< beneath the models' folder; "" for an image
  std::optional<std::int64_t> size_bytes;            ///< as shown; absent: not yet known
  std::int64_t stored_bytes = 0, stored_inodes = 0;  ///< as charged to the user
  ModelDetails details;
  std::string config_text, deploy_text;
  Time created_at{}, updated_at{};
  std::optional<Time> ended_at;
};
void fields(Fields& f, VersionRow& row);

struct RemovalRow {
  std::string version_id, folder;
  Time created_at{};
};
void fields(Fields& f, RemovalRow& row);

/// What the versions of a model come to.
struct Summary {
  std::string model_id;
  std::int64_t versions = 0;
  std::int64_t size_bytes = 0;
  std::string latest_id, latest_version, latest_state;
};

/// Which models a list shows; what is empty does not restrict it.
struct Filter {
  std::optional<std::string> user_id;
  std::string name;  ///< part of the name, whatever its case
  std::string type;
};

std::optional<ModelRow> model(db::Transaction& tx, std::string_view id);
std::optional<ModelRow> model_named(db::Transaction& tx, std::string_view user_id, std::string_view name);
void insert(db::Transaction& tx, ModelRow row);
void update(db::Transaction& tx, ModelRow row);
void delete_model(db::Transaction& tx, std::string_view id);
bool has_models(db::Transaction& tx, std::string_view user_id);

std::int64_t count_models(db::Transaction& tx, const Filter& filter);
/// Newest first.
std::vector<ModelRow> page(db::Transaction& tx, const Filter& filter, std::int64_t limit,
                           std::int64_t offset);
/// Newest first, those before the id `before` (empty: from the start).
std::vector<ModelRow> slice(db::Transaction& tx, const Filter& filter, std::string_view before,
                            std::int64_t limit);
/// Of those models that have versions.
std::vector<Summary> summaries(db::Transaction& tx, const std::vector<std::string>& model_ids);

std::optional<VersionRow> version(db::Transaction& tx, std::string_view id);
std::optional<VersionRow> version_named(db::Transaction& tx, std::string_view model_id,
                                        std::string_view version);
/// Newest first.
std::vector<VersionRow> versions(db::Transaction& tx, std::string_view model_id);
std::vector<VersionRow> versions(db::Transaction& tx, std::string_view model_id, std::string_view before,
                                 std::int64_t limit);
/// In the order of the request.
std::vector<VersionRow> versions_of_request(db::Transaction& tx, std::string_view request_id);
std::vector<VersionRow> versions_of_outputs(db::Transaction& tx, std::span<const std::string> outputs);
/// One that was made from this image; with a tag, from that tag of it.
std::optional<VersionRow> version_of_image(db::Transaction& tx, std::string_view image_id,
                                           std::string_view tag);
/// Oldest first, those after the id `after`.
std::vector<VersionRow> importing(db::Transaction& tx, std::string_view after, std::int64_t limit);
void insert(db::Transaction& tx, const VersionRow& row);
void update(db::Transaction& tx, const VersionRow& row);
void delete_version(db::Transaction& tx, std::string_view id);
quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id);

void insert(db::Transaction& tx, const RemovalRow& row);
std::vector<RemovalRow> removals(db::Transaction& tx);
void delete_removal(db::Transaction& tx, std::string_view version_id);

/// The statements of the lists, for the test of their plans.
std::string page_query(const Filter& filter);
std::string count_query(const Filter& filter);
std::string slice_query(const Filter& filter);
std::string summaries_query(std::size_t models);

}  // namespace lathe::models::store
