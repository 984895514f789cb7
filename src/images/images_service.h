#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "images/blob_store.h"
#include "images/images.h"
#include "images/images_store.h"
#include "images/images_wire.h"
#include "images/importer.h"
#include "images/sweeper.h"
#include "images/uploads.h"

namespace lathe::images {

class ImagesService final : public Images {
 public:
  ImagesService(db::Database& db, accounts::Accounts& accounts, files::Files& files, accounts::Audit& audit,
                IdSource& ids, const Clock& clock, Options options)
      : db_(db),
        accounts_(accounts),
        files_(files),
        audit_(audit),
        ids_(ids),
        clock_(clock),
        options_(std::move(options)) {}
  Result<void> construct();

  Result<ImageRef> resolve(std::string_view user_id, bool admin, std::string_view text,
                           std::string_view field) override;
  std::string layout_path() const override { return options_.store_directory; }
  Result<std::unique_ptr<Export>> open_export(std::string_view digest, std::string_view name) override;
  Result<std::unique_ptr<http::Handler>> make_registry(RegistryOptions options) override;
  void guard_deletion(DeletionGuard guard) override { guards_.push_back(std::move(guard)); }
  void add_uses(Uses uses) override { sweeper_->keep(std::move(uses)); }
  void uses_are_told() override { sweeper_->uses_are_told(); }
  void on_change(std::function<void(std::string_view)> changed) override { changed_ = std::move(changed); }
  Result<void> start() override { return importer_->start(); }
  void stop() override { importer_->stop(); }
  quotas::Storage storage_of(db::Transaction& tx, std::string_view user_id) override {
    return store::storage_of(tx, user_id);
  }
  void add_routes(http::Api& api) override;

  Result<void> create(http::Call& call, const wire::NewImage& in);
  Result<void> begin_import(http::Call& call, const wire::NewImport& in);
  Result<wire::PullOut> begin_pull(http::Call& call, const wire::NewPull& in);
  Result<http::Page<wire::ImageItem>> list(http::Call& call, const wire::ListQuery& query);
  Result<wire::ImageOut> show(http::Call& call, const std::string& id);
  Result<wire::ImageOut> change(http::Call& call, const wire::ImagePatch& patch);
  Result<void> remove(http::Call& call, const std::string& id);
  Result<void> remove_tag(http::Call& call, const wire::ByTag& which);

  // For the registry.
  Result<void> check_guards(db::Transaction& tx, std::string_view image_id, std::string_view tag);
  bool is_used(db::Transaction& tx, std::string_view manifest) const {
    return sweeper_->kept(tx).contains(manifest);
  }
  void changed(std::string_view image_id) {
    if (changed_) changed_(image_id);
    sweeper_->index_changed();
  }
  Sweeper& sweeper() { return *sweeper_; }

 private:
  /// The image, for its user and administrators; others do not learn that it is there.
  Result<store::ImageRow> own(db::Transaction& tx, const http::Identity& caller, std::string_view id);
  Result<ImageRef> reference(db::Transaction& tx, const store::ImageRow& row, std::string_view tag,
                             std::string_view field);
  /// Completes a reference by what its manifest is: of an index, the image for this machine.
  Result<void> complete(ImageRef& ref, std::string_view field);
  Result<wire::ImageOut> describe(db::Transaction& tx, const store::ImageRow& row, Language language);

  db::Database& db_;
  accounts::Accounts& accounts_;
  files::Files& files_;
  accounts::Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  const Options options_;
  std::vector<DeletionGuard> guards_;
  std::unique_ptr<BlobStore> store_;
  std::unique_ptr<Uploads> uploads_;
  std::function<void(std::string_view)> changed_;
  std::mutex host_mutex_;
  std::optional<ImageRef> host_;
  std::unique_ptr<Sweeper> sweeper_;
  std::unique_ptr<Importer> importer_;
};

}  // namespace lathe::images
