#include "quotas/quotas_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quotas/quotas_store.h"

namespace lathe::quotas {

namespace {

constexpr Duration kFresh = std::chrono::seconds{30};
/// What is said where no number of jobs is set: the field is a number, and clients show it.
constexpr std::int64_t kManyJobs = 9999;
constexpr Time kForever{std::chrono::sys_days{std::chrono::year{9999} / 12 / 31}};

constexpr const char* kNoStorageQuota = "存储配额未开启-无限制";
constexpr const char* kUnlimited = "无限制";

template <class Number>
Number left(const std::optional<Number>& limit, Number used, Number machine, Number taken) {
  return std::max(Number{0}, limit ? *limit - used : machine - taken);
}

std::string remaining(const std::optional<std::int64_t>& limit, std::int64_t used,
                      std::string (*format)(std::int64_t)) {
  return limit ? format(std::max<std::int64_t>(0, *limit - used)) : kUnlimited;
}

std::string format_count(std::int64_t count) {
  return fmt::format("{}个", count);
}

}  // namespace

std::string format_size(std::int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.12g}{}", std::round(value * 100) / 100, kUnits[unit]);
}

Result<std::unique_ptr<Quotas>> Quotas::open(db::Database& db, accounts::Accounts& accounts,
                                             accounts::Audit& audit, IdSource& ids, const Clock& clock,
                                             Compute machine) {
  auto service = std::make_unique<Service>(db, accounts, audit, ids, clock, machine);
  TRY(service->make_default_group());
  return std::unique_ptr<Quotas>(std::move(service));
}

Service::Service(db::Database& db, accounts::Accounts& accounts, accounts::Audit& audit, IdSource& ids,
                 const Clock& clock, Compute machine)
    : db_(db), accounts_(accounts), audit_(audit), ids_(ids), clock_(clock), machine_(machine) {
  accounts_.guard_deletion([](db::Transaction& tx, std::string_view user_id) -> Result<void> {
    store::delete_quota(tx, user_id);
    return {};
  });
}

// --- quotas and usage --------------------------------------------------------------------------------------

Quota Service::quota_of(db::Transaction& tx, std::string_view user_id) {
  return store::quota(tx, user_id).value_or(Quota{});
}

Result<Quota> Service::quota_of(std::string_view user_id) {
  const std::string id(user_id);
  const Time now = clock_.now();
  std::uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    epoch = epoch_;
    const auto it = known_.find(id);
    if (it != known_.end() && now - it->second.read_at < kFresh) return it->second.quota;
  }
  Quota quota = TRY(db_.read([&](db::Transaction& tx) -> Result<Quota> { return quota_of(tx, user_id); }));
  const std::lock_guard lock(mutex_);
  if (known_.size() > 10'000) known_.clear();
  if (epoch == epoch_) known_.insert_or_assign(id, Known{quota, now});
  return quota;
}

void Service::forget(const std::string& user_id) {
  const std::lock_guard lock(mutex_);
  ++epoch_;
  known_.erase(user_id);
}

Compute Service::usage_of(db::Transaction& tx, std::string_view user_id) {
  Compute sum;
  for (UsageSource* source : compute_) sum += source->usage_of(tx, user_id);
  return sum;
}

Compute Service::total_usage(db::Transaction& tx) {
  Compute sum;
  for (UsageSource* source : compute_) sum += source->total_usage(tx);
  return sum;
}

Storage Service::storage_of(db::Transaction& tx, std::string_view user_id) {
  Storage sum;
  for (StorageSource* source : storage_) {
    const Storage part = source->storage_of(tx, user_id);
    sum.bytes += part.bytes;
    sum.inodes += part.inodes;
  }
  return sum;
}

Result<Quota> Service::show_quota(const http::Identity& caller, const std::string& user_id) {
  if (user_id != caller.user_id && !caller.admin)
    return Error{Code::permission_denied, {"只能查看自己的配额", "you may see your own quota only"}};
  TRY(accounts_.user(user_id));
  return db_.read([&](db::Transaction& tx) -> Result<Quota> { return quota_of(tx, user_id); });
}

Result<void> Service::put_quota(const http::Call& call, const std::string& user_id, const Quota& quota) {
  TRY(accounts_.user(user_id));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    store::put_quota(tx, user_id, quota);
    audit_.record(tx, call, "quota.update", "user", user_id);
    return {};
  }));
  forget(user_id);
  return {};
}

Result<void> Service::delete_quota(const http::Call& call, const std::string& user_id) {
  TRY(accounts_.user(user_id));
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    if (store::delete_quota(tx, user_id) > 0) audit_.record(tx, call, "quota.delete", "user", user_id);
    return {};
  }));
  forget(user_id);
  return {};
}

Result<wire::Remain> Service::remain(const http::Identity& caller, const wire::RemainQuery& in) {
  const std::string user_id = TRY(accounts_.acting_for(caller, in.user_id, "userId"));
  const accounts::User user = TRY(accounts_.user(user_id));
  return db_.read([&](db::Transaction& tx) -> Result<wire::Remain> {
    const Quota quota = quota_of(tx, user_id);
    const Compute used = usage_of(tx, user_id), taken = total_usage(tx);
    wire::Remain out;
    out.cpu = static_cast<std::int64_t>(left(quota.cpu, used.cpu, machine_.cpu, taken.cpu));
    out.memory_gb =
        std::floor(left(quota.memory_gb, used.memory_gb, machine_.memory_gb, taken.memory_gb) * 100) / 100;
    out.gpu = left(quota.gpu, used.gpu, machine_.gpu, taken.gpu);
    out.vgpu = left(quota.vgpu, used.vgpu, machine_.vgpu, taken.vgpu);
    out.mig = left(quota.mig, used.mig, machine_.mig, taken.mig);
    out.jobs = quota.jobs ? std::max<std::int64_t>(0, *quota.jobs - used.jobs) : kManyJobs;
    out.start_time = quota.start_time.value_or(user.created_at);
    out.end_time = quota.end_time.value_or(kForever);
    return out;
  });
}

Result<wire::StorageRemain> Service::storage_remain(const http::Identity& caller,
                                                    const wire::StorageQuery& in) {
  const std::string user_id = TRY(accounts_.acting_for(caller, in.user_id, "userId"));
  return db_.read([&](db::Transaction& tx) -> Result<wire::StorageRemain> {
    const Quota quota = quota_of(tx, user_id);
    if (!quota.storage_bytes && !quota.storage_inodes)
      return wire::StorageRemain{kNoStorageQuota, kNoStorageQuota, kNoStorageQuota, kNoStorageQuota,
                                 kNoStorageQuota, kNoStorageQuota, kNoStorageQuota, kUnlimited};
    const Storage used = storage_of(tx, user_id);
    wire::StorageRemain out;
    out.inode_quota = quota.storage_inodes ? format_count(*quota.storage_inodes) : kUnlimited;
    out.inode_used = format_count(used.inodes);
    out.inode_remain = remaining(quota.storage_inodes, used.inodes, format_count);
    out.block_quota = quota.storage_bytes ? format_size(*quota.storage_bytes) : kUnlimited;
    out.block_used = format_size(used.bytes);
    out.block_remain = remaining(quota.storage_bytes, used.bytes, format_size);
    out.start_time = quota.start_time ? format_local(*quota.start_time) : kUnlimited;
    out.end_time = quota.end_time ? format_local(*quota.end_time) : kUnlimited;
    return out;
  });
}

}  // namespace lathe::quotas
