#include "models/models_service.h"

#include <fmt/format.h>

namespace lathe::models {

namespace {

struct StateFacts {
  State state;
  std::string_view name;
  int number;
};
constexpr StateFacts kStates[] = {
    {State::importing, "importing", 1}, {State::ready, "ready", 2}, {State::failed, "failed", 3}};

State state_named(std::string_view word) {
  for (const auto& row : kStates)
    if (row.name == word) return row.state;
  return State::failed;
}

Error no_model(std::string_view id) {
  return not_found({"模型", "model"}, id);
}
Error no_version(std::string_view id) {
  return not_found({"模型版本", "model version"}, id);
}

}  // namespace

std::string_view name(State state) {
  return kStates[static_cast<std::size_t>(state)].name;
}

int documented_status(State state) {
  return kStates[static_cast<std::size_t>(state)].number;
}

Result<std::unique_ptr<Models>> Models::open(db::Database& db, accounts::Accounts& accounts,
                                             files::Files& files, images::Images& images,
                                             accounts::Audit& audit, IdSource& ids, const Clock& clock,
                                             Options options) {
  auto importer = TRY(Importer::open(db, files, clock, {std::move(options.folder), options.importers}));
  auto service =
      std::make_unique<Service>(db, accounts, files, images, audit, ids, clock, std::move(importer));
  service->add_guards();
  return std::unique_ptr<Models>(std::move(service));
}

Service::Service(db::Database& db, accounts::Accounts& accounts, files::Files& files, images::Images& images,
                 accounts::Audit& audit, IdSource& ids, const Clock& clock,
                 std::unique_ptr<Importer> importer)
    : db_(db),
      accounts_(accounts),
      files_(files),
      images_(images),
      audit_(audit),
      ids_(ids),
      clock_(clock),
      importer_(std::move(importer)) {}

void Service::add_guards() {
  accounts_.guard_deletion([](db::Transaction& tx, std::string_view user_id) -> Result<void> {
    if (!store::has_models(tx, user_id)) return {};
    return Error{Code::failed_precondition,
                 {"该用户还有模型，请先删除", "this user still has models: delete them first"}};
  });
  images_.guard_deletion(
      [](db::Transaction& tx, std::string_view image_id, std::string_view tag) -> Result<void> {
        const auto user = store::version_of_image(tx, image_id, tag);
        if (!user) return {};
        const auto model = store::model(tx, user->model_id);
        const std::string what = (model ? model->name : user->model_id) + ":" + user->version;
        return Error{Code::failed_precondition,
                     {"镜像正被模型版本使用：" + what, "the image is used by the model version " + what}};
      });
}

// --- for others --------------------------------------------------------------------------------------------

ModelVersion Service::public_form(const store::VersionRow& row, const std::string& model_name) const {
  ModelVersion out{.id = row.id,
                   .model_id = row.model_id,
                   .model_name = model_name,
                   .version = row.version,
                   .user_id = row.user_id,
                   .source = static_cast<Source>(row.source),
                   .state = state_named(row.state),
                   .failure = {row.failure_zh, row.failure_en},
                   .root = {},
                   .path = row.folder,
                   .image = row.image,
                   .training_output = row.training_output,
                   .size_bytes = row.size_bytes.value_or(0),
                   .facts = facts_of(row.details)};
  if (!row.folder.empty()) out.root = importer_->folder();
  return out;
}

std::optional<ModelVersion> Service::version(db::Transaction& tx, std::string_view id) {
  const auto row = store::version(tx, id);
  if (!row) return std::nullopt;
  const auto model = store::model(tx, row->model_id);
  return public_form(*row, model ? model->name : std::string());
}

Result<ModelVersion> Service::version(std::string_view id) {
  return db_.read([&](db::Transaction& tx) -> Result<ModelVersion> {
    auto found = version(tx, id);
    if (!found) return no_version(id);
    return std::move(*found);
  });
}

Result<ModelVersion> Service::version(std::string_view id, const http::Identity& caller,
                                      std::string_view field) {
  return db_.read([&](db::Transaction& tx) -> Result<ModelVersion> {
    auto found = version(tx, id);
    if (found && (caller.admin || found->user_id == caller.user_id)) return std::move(*found);
    Error error = no_version(id);
    error.violations = {
        {std::string(field), {"没有您可以使用的这一模型版本", "is not a model version that you may use"}}};
    return error;
  });
}

Result<std::vector<ModelVersion>> Service::versions_of_outputs(std::span<const std::string> ids) {
  return db_.read([&](db::Transaction& tx) -> Result<std::vector<ModelVersion>> {
    std::vector<ModelVersion> out;
    for (const auto& row : store::versions_of_outputs(tx, ids)) {
      const auto model = store::model(tx, row.model_id);
      out.push_back(public_form(row, model ? model->name : std::string()));
    }
    return out;
  });
}

quotas::Storage Service::storage_of(db::Transaction& tx, std::string_view user_id) {
  return store::storage_of(tx, user_id);
}

// --- reading -----------------------------------------------------------------------------------------------

Result<store::ModelRow> Service::visible_model(db::Transaction& tx, const http::Identity& caller,
                                               std::string_view id) {
  auto row = store::model(tx, id);
  if (!row || (row->user_id != caller.user_id && !caller.admin)) return no_model(id);
  return std::move(*row);
}

Result<store::VersionRow> Service::visible_version(db::Transaction& tx, const http::Identity& caller,
                                                   std::string_view id) {
  auto row = store::version(tx, id);
  if (!row || (row->user_id != caller.user_id && !caller.admin)) return no_version(id);
  return std::move(*row);
}

namespace {

std::map<std::string, store::Summary> summarise(db::Transaction& tx,
                                                const std::vector<store::ModelRow>& models) {
  std::vector<std::string> ids;
  for (const auto& model : models) ids.push_back(model.id);
  std::map<std::string, store::Summary> out;
  for (auto& summary : store::summaries(tx, ids)) out.emplace(summary.model_id, std::move(summary));
  return out;
}

}  // namespace

Result<Service::Listed> Service::list(const http::Identity& caller, const wire::ListIn& in) {
  const store::Filter filter{TRY(accounts_.listing_for(caller, in.query.create_user, "queryInfo.createUser")),
                             in.query.name, in.query.type};
  return db_.read([&](db::Transaction& tx) -> Result<Listed> {
    Listed out;
    out.total = store::count_models(tx, filter);
    out.models = store::page(tx, filter, in.size(), in.offset());
    out.summaries = summarise(tx, out.models);
    return out;
  });
}

Result<Service::Listed> Service::slice(const http::Identity& caller, const wire::ModelsIn& in) {
  const store::Filter filter{TRY(accounts_.listing_for(caller, in.user_id, "userId")), in.name, in.type};
  return db_.read([&](db::Transaction& tx) -> Result<Listed> {
    Listed out;
    out.models = store::slice(tx, filter, in.cursor, in.limit());
    out.summaries = summarise(tx, out.models);
    return out;
  });
}

Result<Service::Listed> Service::show(const http::Identity& caller, std::string_view id) {
  return db_.read([&](db::Transaction& tx) -> Result<Listed> {
    Listed out;
    out.models.push_back(TRY(visible_model(tx, caller, id)));
    out.summaries = summarise(tx, out.models);
    return out;
  });
}

Result<Service::Created> Service::versions(const http::Identity& caller, std::string_view model_id) {
  return db_.read([&](db::Transaction& tx) -> Result<Created> {
    Created out{TRY(visible_model(tx, caller, model_id)), {}};
    out.versions = store::versions(tx, model_id);
    return out;
  });
}

Result<Service::Created> Service::versions(const http::Identity& caller, const wire::VersionsIn& in) {
  return db_.read([&](db::Transaction& tx) -> Result<Created> {
    Created out{TRY(visible_model(tx, caller, in.id)), {}};
    out.versions = store::versions(tx, in.id, in.cursor, in.limit());
    return out;
  });
}

Result<Service::Created> Service::show_version(const http::Identity& caller, std::string_view id) {
  return db_.read([&](db::Transaction& tx) -> Result<Created> {
    store::VersionRow row = TRY(visible_version(tx, caller, id));
    auto model = store::model(tx, row.model_id);
    if (!model) return no_version(id);
    Created out{std::move(*model), {}};
    out.versions.push_back(std::move(row));
    return out;
  });
}

// --- changing ----------------------------------------------------------------------------------------------

Result<void> Service::patch(const http::Call& call, const wire::ModelPatch& in) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    store::ModelRow row = TRY(visible_model(tx, call.caller, in.id));
    if (in.name && *in.name != row.name) {
      if (store::model_named(tx, row.user_id, *in.name))
        return Error{Code::already_exists,
                     {"模型名称已存在", "the model's name is taken"},
                     {{"name", {"已存在：" + *in.name, "exists already: " + *in.name}}}};
      row.name = *in.name;
    }
    if (in.description) row.description = *in.description;
    if (in.type) row.type = *in.type;
    if (in.developer) row.developer = *in.developer;
    if (in.hyper_parameters) row.hyper_parameters = *in.hyper_parameters;
    row.updated_at = clock_.now();
    store::update(tx, row);
    audit_.record(tx, call, "model.update", "model", row.id, row.name);
    return {};
  });
}

Result<void> Service::patch_version(const http::Call& call, const wire::VersionPatch& in) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    store::VersionRow row = TRY(visible_version(tx, call.caller, in.id));
    if (in.description) row.description = *in.description;
    if (in.label) row.label = *in.label;
    row.updated_at = clock_.now();
    store::update(tx, row);
    audit_.record(tx, call, "modelVersion.update", "modelVersion", row.id, row.version);
    return {};
  });
}

Result<void> Service::remove_row(db::Transaction& tx, const http::Call& call, const store::VersionRow& row) {
  for (const auto& guard : guards_) TRY(guard(tx, row.id));
  store::delete_version(tx, row.id);
  if (!row.folder.empty()) store::insert(tx, store::RemovalRow{row.id, row.folder, clock_.now()});
  audit_.record(tx, call, "modelVersion.delete", "modelVersion", row.id, row.version);
  return {};
}

Result<void> Service::remove(const http::Call& call, std::string_view id) {
  auto removed = TRY(db_.write([&](db::Transaction& tx) -> Result<std::vector<store::VersionRow>> {
    const store::ModelRow model = TRY(visible_model(tx, call.caller, id));
    auto versions = store::versions(tx, id);
    for (const auto& row : versions) TRY(remove_row(tx, call, row));
    store::delete_model(tx, id);
    audit_.record(tx, call, "model.delete", "model", id, model.name);
    return versions;
  }));
  for (const auto& row : removed) {
    if (!row.folder.empty()) importer_->add_removal(row.id, row.folder);
    importer_->changed(row.id);
  }
  return {};
}

Result<void> Service::remove_version(const http::Call& call, std::string_view id) {
  const auto removed = TRY(db_.write([&](db::Transaction& tx) -> Result<store::VersionRow> {
    store::VersionRow row = TRY(visible_version(tx, call.caller, id));
    TRY(remove_row(tx, call, row));
    return row;
  }));
  if (!removed.folder.empty()) importer_->add_removal(removed.id, removed.folder);
  importer_->changed(removed.id);
  return {};
}

}  // namespace lathe::models
