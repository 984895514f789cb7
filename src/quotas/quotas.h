#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/accounts.h"
#include "accounts/audit.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "db/database.h"
#include "http/api.h"

namespace lathe::quotas {

/// An amount of computing: what something asks for, holds, or has left.
struct Compute {
  double cpu = 0;        ///< cores
  double memory_gb = 0;  ///< GB of 2^30 bytes
  std::int64_t gpu = 0;  ///< whole devices
  std::int64_t vgpu = 0;
  std::int64_t mig = 0;
  std::int64_t jobs = 0;

  Compute& operator+=(const Compute& other);
  Compute& operator-=(const Compute& other);
};

struct Storage {
  std::int64_t bytes = 0;
  std::int64_t inodes = 0;  ///< files and folders
};

/// The most a user may hold at a time. What is absent is unlimited.
struct Quota {
  std::optional<double> cpu;
  std::optional<double> memory_gb;
  std::optional<std::int64_t> gpu, vgpu, mig, jobs;
  std::optional<std::int64_t> storage_bytes, storage_inodes;
  std::optional<Time> start_time, end_time;  ///< nothing may start before the one or after the other
};

/// What holds computing for users: jobs, serving. The truth at the moment of the call, as the transaction
/// sees it, so that a check and the reservation that follows it in the same transaction cannot be overtaken.
class UsageSource {
 public:
  virtual ~UsageSource() = default;
  virtual Compute usage_of(db::Transaction& tx, std::string_view user_id) = 0;
  virtual Compute total_usage(db::Transaction& tx) = 0;
};

/// What holds storage for users: files, images, models.
class StorageSource {
 public:
  virtual ~StorageSource() = default;
  virtual Storage storage_of(db::Transaction& tx, std::string_view user_id) = 0;
};

/// May something start now?
enum class Admission {
  fits,
  waiting_for_quota,  ///< later, when the user's other things have ended
  quota_expired,      ///< not now: the quota's validity has not begun or is over
  exceeds_max_quota,  ///< never: alone it is more than the quota
};
struct Verdict {
  Admission admission = Admission::fits;
  Text detail;  ///< for people: which resource, how much is asked for, used and allowed
};
/// The whole rule. Never before later: what can never fit is refused even when the quota is out of date.
Verdict check(const Quota& quota, const Compute& used, const Compute& request, Time now);
/// `exceeds_max_quota` as the error that refuses a creation (unsatisfiable); every other verdict is no error.
Result<void> refuse_never(const Verdict& verdict);

/// A part of the platform's computing that has an engine and users. Of an engine on this machine the capacity
/// is always known; of a cluster's, what is absent is whatever the cluster has.
struct ResourceGroup {
  std::string id;
  std::string name;
  std::string key;     ///< made by the platform: `resourceGroup` and 16 letters and digits
  std::string engine;  ///< "process", "docker", "slurm", "kubernetes"
  std::optional<double> cpu;
  std::optional<double> memory_gb;
  std::optional<std::int64_t> gpu;
  std::vector<std::string> users;  ///< ids of those who may use it; empty: everybody
  Time created_at{};
};
inline constexpr std::string_view kDefaultGroup = "default";

/// How a request names a resource group: any of the three, and what the fields are called in it.
struct GroupRef {
  std::string_view id = {};
  std::string_view key = {};
  std::string_view name = {};
  std::string_view id_field = "zoneId";  ///< elsewhere "resourceGroupId"
  std::string_view key_field = "resourceGroupKey";
  std::string_view name_field = "zoneName";  ///< elsewhere "resourceGroupName"
};

/// Quotas and resource groups. Safe from any thread.
class Quotas {
 public:
  /// `machine` is what this machine has; the group `default` has it. References must outlive the Quotas.
  static Result<std::unique_ptr<Quotas>> open(db::Database& db, accounts::Accounts& accounts,
                                              accounts::Audit& audit, IdSource& ids, const Clock& clock,
                                              Compute machine);
  virtual ~Quotas() = default;

  /// Registers who knows what is in use; twice is once. Called at start, before the first request; the
  /// sources must live until the server has stopped.
  virtual void add_source(UsageSource& source) = 0;
  virtual void add_source(StorageSource& source) = 0;

  /// A user without a quota has an unlimited one.
  virtual Quota quota_of(db::Transaction& tx, std::string_view user_id) = 0;
  /// From memory: for the path of every upload.
  virtual Result<Quota> quota_of(std::string_view user_id) = 0;
  /// The sum over all sources.
  virtual Compute usage_of(db::Transaction& tx, std::string_view user_id) = 0;
  virtual Compute total_usage(db::Transaction& tx) = 0;
  virtual Storage storage_of(db::Transaction& tx, std::string_view user_id) = 0;
  /// What this machine has in all.
  virtual Compute machine() const = 0;

  /// The group a request means; nothing given means `default`. invalid_argument, naming the field, for one
  /// that does not exist or fields that contradict each other; permission_denied if the user may not use it.
  virtual Result<ResourceGroup> resolve_group(std::string_view user_id, const GroupRef& ref) = 0;
  virtual Result<ResourceGroup> group(std::string_view id) = 0;
  virtual Result<std::vector<ResourceGroup>> groups() = 0;
  /// Asked inside the transaction that would delete a group; an error refuses. Called at start.
  using DeletionGuard = std::function<Result<void>(db::Transaction& tx, std::string_view group_id)>;
  virtual void guard_deletion(DeletionGuard guard) = 0;

  /// /api/v1/users/{id}/quota, /api/v1/resource-groups and the documented calls 4.5 = 5.5 = 9.1 and 9.2.
  virtual void add_routes(http::Api& api) = 0;
};

/// What this machine has: its cores and memory, or what the control group of this process leaves of them.
/// GPUs are the engines' to find.
Compute machine_capacity();

}  // namespace lathe::quotas
