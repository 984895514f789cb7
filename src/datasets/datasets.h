#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "files/files.h"

/// A registry of the data that jobs read: names for folders and files under the users' roots. A version
/// points at its data and does not copy it.
namespace lathe::datasets {

/// The documented `storageMedium`: on this machine's disk. (1203, an object store, is refused at the door.)
inline constexpr std::int64_t kLocalStorage = 1201;

/// Where a version's data is, for a job that may read it.
struct DatasetRef {
  std::string dataset_id, dataset_name;
  std::string version_id, version;
  files::Root root;       ///< whose files
  Path path;              ///< below that root
  std::string host_path;  ///< the two together, on this machine
  std::int64_t storage_medium = kLocalStorage;
};

/// How a request names a dataset: a version by its id, else a dataset by id or name, meaning its newest
/// version; and what the fields are called in that request.
struct DatasetName {
  std::string_view version_id = {};
  std::string_view id = {};
  std::string_view name = {};
  std::string_view version_field = "datasetVersionId";
  std::string_view id_field = "datasetId";
  std::string_view name_field = "dataSetName";
};

/// Safe from any thread. References given to `open` must outlive it.
class Datasets {
 public:
  static Result<std::unique_ptr<Datasets>> open(db::Database& db, accounts::Accounts& accounts,
                                                files::Files& files, accounts::Audit& audit, IdSource& ids,
                                                const Clock& clock);
  virtual ~Datasets() = default;

  /// The data a user means and may read: their own, public ones, and for an administrator all. Errors name
  /// the request's field; the data is there when this returns.
  virtual Result<DatasetRef> resolve(std::string_view user_id, bool admin, const DatasetName& name) = 0;

  /// Asked inside the transaction that would delete a dataset (then `version_id` is empty) or a version of
  /// it; an error refuses and says what uses it. Called at start, before the first request.
  using DeletionGuard = std::function<Result<void>(db::Transaction& tx, std::string_view dataset_id,
                                                   std::string_view version_id)>;
  virtual void guard_deletion(DeletionGuard guard) = 0;

  /// /api/v1/datasets.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::datasets
