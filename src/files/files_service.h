#pragma once

#include <memory>
#include <string>
#include <vector>

#include "accounts/audit.h"
#include "files/files.h"
#include "files/files_wire.h"
#include "files/resumable.h"
#include "files/staging.h"
#include "files/usage.h"

namespace lathe::files {

/// Files on the local disk.
class FilesService final : public Files {
 public:
  FilesService(db::Database& db, accounts::Accounts& accounts, quotas::Quotas& quotas, accounts::Audit& audit,
               IdSource& ids, const Clock& clock, Options options);
  Result<void> start();

  Result<Directory> root(const Root& root) override;
  std::string host_path(const Root& root) const override;
  std::optional<Owner> owner() const override { return options_.owner; }
  Result<std::unique_ptr<Reservation>> reserve(std::string_view user_id) override {
    return usage_.reserve(user_id);
  }
  void recount(std::string_view user_id) override { usage_.recount(user_id); }
  Result<quotas::Storage> count_now(std::string_view user_id) override {
    return usage_.count_now(std::string(user_id));
  }
  quotas::Storage storage_of(db::Transaction&, std::string_view user_id) override {
    return usage_.of(user_id);
  }
  void add_routes(http::Api& api) override;

  /// The root a request means, if the caller may read it.
  Result<Root> readable(const http::Identity& caller, const RootQuery& query);
  /// The same for changing what is in it.
  Result<Root> writable(const http::Identity& caller, const RootQuery& query);

  Result<Listing> list(const http::Identity& caller, const ListQuery& query);
  Result<Entry> entry(const http::Identity& caller, const PathQuery& query);
  Result<Entry> move(http::Call& call, const MoveQuery& query);
  Result<void> remove(http::Call& call, const PathQuery& query);
  Result<Entry> make_folder(http::Call& call, const PathQuery& query);
  Result<Fd> open_content(const http::Identity& caller, const PathQuery& query);

  Result<std::unique_ptr<FolderUpload>> begin_upload(std::string_view charged_to);
  accounts::Accounts& accounts() { return accounts_; }
  std::size_t max_parts() const { return options_.max_parts; }

 private:
  Result<void> recover_staging();
  Result<quotas::Storage> count(const std::string& user_id, const std::atomic<bool>& stop);
  Result<Entry> entry_at(const Directory& root, const Path& path, Links links);
  void audit(http::Call& call, std::string_view action, const Root& root, const Path& path,
             std::string_view detail = {});

  db::Database& db_;
  accounts::Accounts& accounts_;
  accounts::Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  const Options options_;
  Directory users_;
  Directory staging_;
  Usage usage_;
  Publishing publishing_;
  std::unique_ptr<Resumable> resumable_;
};

}  // namespace lathe::files
