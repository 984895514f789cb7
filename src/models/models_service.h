#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/importer.h"
#include "models/models.h"
#include "models/models_store.h"
#include "models/models_wire.h"

namespace lathe::models {

/// What the routes call. Safe from any thread.
class Service final : public Models {
 public:
  Service(db::Database& db, accounts::Accounts& accounts, files::Files& files, images::Images& images,
          accounts::Audit& audit, IdSource& ids, const Clock& clock, std::unique_ptr<Importer> importer);
  void add_guards();

  using Models::version;
  Result<ModelVersion> version(std::string_view id, const http::Identity& caller,
                               std::string_view field) override;
  std::optional<ModelVersion> version(db::Transaction& tx, std::string_view id) override;
  Result<ModelVersion> version(std::string_view id) override;
  Result<std::vector<ModelVersion>> versions_of_outputs(std::span<const std::string> ids) override;
  quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id) override;

  void set_training_outputs(TrainingOutputs& outputs) override { outputs_ = &outputs; }
  void guard_deletion(DeletionGuard guard) override { guards_.push_back(std::move(guard)); }
  void on_change(Observer observer) override { importer_->on_change(std::move(observer)); }
  Result<void> start() override { return importer_->start(); }
  void add_routes(http::Api& api) override;

  /// A model with some of its versions.
  struct Created {
    store::ModelRow model;
    std::vector<store::VersionRow> versions;
  };
  Result<Created> create(const http::Call& call, const wire::CreateIn& in);

  struct Listed {
    std::vector<store::ModelRow> models;
    std::map<std::string, store::Summary> summaries;  ///< by model, of those that have versions
    std::int64_t total = 0;
  };
  Result<Listed> list(const http::Identity& caller, const wire::ListIn& in);
  /// One model more than a slice where there are more; without `total`.
  Result<Listed> slice(const http::Identity& caller, const wire::ModelsIn& in);
  Result<Listed> show(const http::Identity& caller, std::string_view id);
  Result<Created> versions(const http::Identity& caller, std::string_view model_id);
  Result<Created> versions(const http::Identity& caller, const wire::VersionsIn& in);
  Result<Created> show_version(const http::Identity& caller, std::string_view id);

  Result<void> patch(const http::Call& call, const wire::ModelPatch& in);
  Result<void> patch_version(const http::Call& call, const wire::VersionPatch& in);
  Result<void> remove(const http::Call& call, std::string_view id);
  Result<void> remove_version(const http::Call& call, std::string_view id);

  /// How rows are shown, in the caller's language.
  wire::ApplicationOut application(const store::ModelRow& row, const store::Summary* summary);
  wire::VersionOut documented(const store::ModelRow& model, const store::VersionRow& row, Language language);
  wire::ModelOut shown(const store::ModelRow& row, const store::Summary* summary);
  wire::ModelVersionOut shown(const store::ModelRow& model, const store::VersionRow& row, Language language);
  std::int64_t login_user(std::string_view user_id);

 private:
  /// Steps of `create`, none of which writes.
  Result<accounts::User> check_users(const http::Identity& caller, const wire::CreateIn& in);
  Result<std::string> check_name(const wire::CreateIn& in);
  Result<store::VersionRow> prepare(const http::Identity& caller, const accounts::User& user,
                                    const wire::VersionIn& in, const std::string& at);
  Result<void> find_training_output(const http::Identity& caller, const wire::VersionIn& in,
                                    const std::string& at, store::VersionRow& row);
  Result<void> find_image(const http::Identity& caller, const std::string& at, store::VersionRow& row);
  Result<void> find_files(const accounts::User& user, const wire::VersionIn& in, const std::string& at,
                          store::VersionRow& row);
  Result<void> measure(const Directory& source, const Path& path, store::VersionRow& row);
  Result<Created> insert(const http::Call& call, const accounts::User& user, const std::string& name,
                         const wire::CreateIn& in, std::vector<store::VersionRow> rows,
                         const std::string& request_id);
  Result<std::optional<Created>> made_before(const std::string& request_id);

  Result<store::ModelRow> visible_model(db::Transaction& tx, const http::Identity& caller,
                                        std::string_view id);
  Result<store::VersionRow> visible_version(db::Transaction& tx, const http::Identity& caller,
                                            std::string_view id);
  Result<void> remove_row(db::Transaction& tx, const http::Call& call, const store::VersionRow& row);
  ModelVersion public_form(const store::VersionRow& row, const std::string& model_name) const;

  db::Database& db_;
  accounts::Accounts& accounts_;
  files::Files& files_;
  images::Images& images_;
  accounts::Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  TrainingOutputs* outputs_ = nullptr;
  std::vector<DeletionGuard> guards_;
  std::unique_ptr<Importer> importer_;
};

}  // namespace lathe::models
