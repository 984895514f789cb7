#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "datasets/datasets.h"
#include "datasets/datasets_store.h"
#include "datasets/datasets_wire.h"

namespace lathe::datasets {

class DatasetsService final : public Datasets {
 public:
  DatasetsService(db::Database& db, accounts::Accounts& accounts, files::Files& files, accounts::Audit& audit,
                  IdSource& ids, const Clock& clock)
      : db_(db), accounts_(accounts), files_(files), audit_(audit), ids_(ids), clock_(clock) {}
  ~DatasetsService() override;
  Result<void> start();

  Result<DatasetRef> resolve(std::string_view user_id, bool admin, const DatasetName& name) override;
  void guard_deletion(DeletionGuard guard) override { guards_.push_back(std::move(guard)); }
  void add_routes(http::Api& api) override;

  Result<http::Slice<wire::DatasetOut>> list(http::Call& call, const wire::ListQuery& query);
  Result<wire::DatasetOut> create(http::Call& call, const wire::NewDataset& in);
  Result<wire::DatasetOut> show(http::Call& call, const std::string& id);
  Result<wire::DatasetOut> change(http::Call& call, const wire::Patch& patch);
  Result<void> remove(http::Call& call, const std::string& id);
  Result<http::Slice<wire::VersionOut>> versions(http::Call& call, const wire::VersionQuery& query);
  Result<wire::VersionOut> add_version(http::Call& call, const wire::NewVersion& in);
  Result<wire::VersionOut> version(http::Call& call, const wire::VersionId& which);
  Result<void> remove_version(http::Call& call, const wire::VersionId& which);

 private:
  Result<store::DatasetRow> readable(db::Transaction& tx, std::string_view user_id, bool admin,
                                     std::string_view id);
  Result<store::DatasetRow> own(db::Transaction& tx, const http::Identity& caller, std::string_view id);
  Result<Path> existing(const std::string& user_id, const wire::Source& source);
  Result<store::VersionRow> insert_version(db::Transaction& tx, const store::DatasetRow& dataset,
                                           const wire::Source& source, const Path& path, std::string id);
  Result<store::VersionRow> find(db::Transaction& tx, std::string_view user_id, bool admin,
                                 const DatasetName& name, store::DatasetRow& dataset);
  Result<void> check_guards(db::Transaction& tx, std::string_view dataset_id, std::string_view version_id);
  wire::DatasetOut describe(db::Transaction& tx, const store::DatasetRow& row);
  void measure_soon(std::string version_id);
  void measure(const std::string& version_id);
  void run();

  db::Database& db_;
  accounts::Accounts& accounts_;
  files::Files& files_;
  accounts::Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  std::vector<DeletionGuard> guards_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> queue_;  ///< versions to measure
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace lathe::datasets
