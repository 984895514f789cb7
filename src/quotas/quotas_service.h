#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "http/slice.h"
#include "quotas/quotas.h"
#include "quotas/quotas_wire.h"

namespace lathe::quotas {

/// What the routes call. Safe from any thread.
class Service final : public Quotas {
 public:
  Service(db::Database& db, accounts::Accounts& accounts, accounts::Audit& audit, IdSource& ids,
          const Clock& clock, Compute machine);
  Result<void> make_default_group();

  void add_source(UsageSource& source) override { add_once(compute_, source); }
  void add_source(StorageSource& source) override { add_once(storage_, source); }
  Quota quota_of(db::Transaction& tx, std::string_view user_id) override;
  Result<Quota> quota_of(std::string_view user_id) override;
  Compute usage_of(db::Transaction& tx, std::string_view user_id) override;
  Compute total_usage(db::Transaction& tx) override;
  Storage storage_of(db::Transaction& tx, std::string_view user_id) override;
  Compute machine() const override { return machine_; }
  Result<ResourceGroup> resolve_group(std::string_view user_id, const GroupRef& ref) override;
  Result<ResourceGroup> group(std::string_view id) override;
  Result<std::vector<ResourceGroup>> groups() override;
  void guard_deletion(DeletionGuard guard) override { guards_.push_back(std::move(guard)); }
  void add_routes(http::Api& api) override;

  /// A user may see their own quota, an administrator everyone's.
  Result<Quota> show_quota(const http::Identity& caller, const std::string& user_id);
  Result<void> put_quota(const http::Call& call, const std::string& user_id, const Quota& quota);
  Result<void> delete_quota(const http::Call& call, const std::string& user_id);
  Result<wire::Remain> remain(const http::Identity& caller, const wire::RemainQuery& in);
  Result<wire::StorageRemain> storage_remain(const http::Identity& caller, const wire::StorageQuery& in);

  /// Those that the caller may use.
  Result<http::Slice<ResourceGroup>> list_groups(const http::Identity& caller, const http::SliceQuery& query);
  Result<ResourceGroup> show_group(const http::Identity& caller, std::string_view id);
  Result<ResourceGroup> create_group(const http::Call& call, const wire::NewGroup& in);
  Result<ResourceGroup> patch_group(const http::Call& call, const wire::GroupPatch& in);
  Result<void> delete_group(const http::Call& call, std::string_view id);

 private:
  template <class Source>
  static void add_once(std::vector<Source*>& sources, Source& source) {
    if (std::find(sources.begin(), sources.end(), &source) == sources.end()) sources.push_back(&source);
  }
  /// Of an engine on this machine, what the group does not limit is the machine's.
  ResourceGroup completed(ResourceGroup group) const;
  Result<void> check_users(const std::vector<std::string>& users);
  void forget(const std::string& user_id);
  using Groups = std::shared_ptr<const std::vector<ResourceGroup>>;
  /// All groups, newest first, from memory: every job that is created and every decision asks.
  Result<Groups> known_groups();
  /// After every change of one.
  void forget_groups();

  db::Database& db_;
  accounts::Accounts& accounts_;
  accounts::Audit& audit_;
  IdSource& ids_;
  const Clock& clock_;
  const Compute machine_;
  std::vector<UsageSource*> compute_;
  std::vector<StorageSource*> storage_;
  std::vector<DeletionGuard> guards_;

  struct Known {
    Quota quota;
    Time read_at{};
  };
  std::mutex mutex_;
  std::unordered_map<std::string, Known> known_;
  std::uint64_t epoch_ = 0;
  Groups groups_;
  std::uint64_t groups_epoch_ = 0;
};

/// `1.5GB`, `20MB`, `0B`: a size for people, in powers of 1024.
std::string format_size(std::int64_t bytes);

}  // namespace lathe::quotas
