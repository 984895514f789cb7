#include "jobs/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "jobs/capacity.h"

namespace lathe::admission {

namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max() / 4;

struct Dimension {
  std::int64_t ResourceTotal::*member;
  const char *zh, *en;
};
constexpr Dimension kDimensions[] = {{&ResourceTotal::cpu, "CPU 核", "CPU cores"},
                                     {&ResourceTotal::memory_gb, "GB 内存", "GB of memory"},
                                     {&ResourceTotal::gpu, "块 GPU", "GPUs"},
                                     {&ResourceTotal::vgpu, "个 vGPU", "vGPUs"},
                                     {&ResourceTotal::mig, "个 MIG 切片", "MIG slices"}};

bool fits(const ResourceTotal& need, const ResourceTotal& room) {
  return std::all_of(std::begin(kDimensions), std::end(kDimensions),
                     [&](const auto& d) { return need.*d.member == 0 || need.*d.member <= room.*d.member; });
}

/// "needs 4 CPU cores, 1 of 8 free", for every dimension that is short.
Text shortage(const ResourceTotal& need, const ResourceTotal& room, const ResourceTotal& capacity) {
  Text out;
  for (const auto& d : kDimensions) {
    if (need.*d.member == 0 || need.*d.member <= room.*d.member) continue;
    const auto free = std::max<std::int64_t>(0, room.*d.member);
    out.zh += fmt::format("{}需要 {} {}，空闲 {}/{}", out.zh.empty() ? "" : "；", need.*d.member, d.zh, free,
                          capacity.*d.member);
    out.en += fmt::format("{}needs {} {}, {} of {} free", out.en.empty() ? "" : "; ", need.*d.member, d.en,
                          free, capacity.*d.member);
  }
  return out;
}

/// Something finite that several share in turn: a group's capacity or a user's quota.
struct Pool {
  ResourceTotal capacity;
  ResourceTotal free;

  // Set once a candidate does not fit.
  bool reserved = false;
  ResourceTotal spare;              ///< what later ones may hold beside the reserved one
  std::optional<Time> reserved_at;  ///< when the reserved one can start at the latest; nothing: unknown

  void take(const ResourceTotal& need) {
    free -= need;
    spare -= need;
  }

  /// Keeps room for `head`: from now on, what starts must not stand in its way.
  void reserve(const Candidate& head, const ResourceTotal& need, std::vector<Holding> holdings) {
    reserved = true;
    spare = capacity;
    spare -= need;
    for (const auto& holding : holdings)
      if (holding.permanent || holding.since > head.queued_at) spare -= holding.held;
    std::erase_if(holdings, [](const Holding& h) { return !h.ends_by; });
    std::sort(holdings.begin(), holdings.end(),
              [](const Holding& a, const Holding& b) { return *a.ends_by < *b.ends_by; });
    ResourceTotal then = free;
    for (const auto& holding : holdings) {
      then += holding.held;
      if (!fits(need, then)) continue;
      reserved_at = holding.ends_by;
      break;
    }
  }

  /// Would it stand in the way of the reserved one?
  bool may_overtake(const Candidate& candidate, const ResourceTotal& need, Time now) const {
    if (!reserved || fits(need, spare)) return true;
    return reserved_at && candidate.time_limit.count() > 0 && now + candidate.time_limit <= *reserved_at;
  }
};

ResourceTotal quota_total(const quotas::Quota& quota) {
  return {.cpu = quota.cpu ? static_cast<std::int64_t>(*quota.cpu) : kUnlimited,
          .memory_gb = quota.memory_gb ? static_cast<std::int64_t>(*quota.memory_gb) : kUnlimited,
          .gpu = quota.gpu.value_or(kUnlimited),
          .vgpu = quota.vgpu.value_or(kUnlimited),
          .mig = quota.mig.value_or(kUnlimited)};
}

/// A group does not count shares and slices: whether there is room for one is for the devices to say.
ResourceTotal with_devices_deciding(ResourceTotal capacity) {
  capacity.vgpu = capacity.mig = kUnlimited;
  return capacity;
}

class Round {
 public:
  explicit Round(const Snapshot& snapshot) : snapshot_(snapshot) {
    for (const auto& [id, group] : snapshot.groups) {
      const ResourceTotal capacity = with_devices_deciding(group.capacity);
      groups_[id] = {.capacity = capacity, .free = capacity};
      gpus_[id] = group.gpus;
    }
    for (const auto& [id, quota] : snapshot.quotas)
      users_[id] = {.capacity = quota_total(quota), .free = quota_total(quota)};
    for (const auto& holding : snapshot.holdings) {
      if (auto it = groups_.find(holding.group_id); it != groups_.end()) it->second.take(holding.held);
      if (auto it = users_.find(holding.user_id); it != users_.end()) it->second.take(holding.held);
      used_[holding.user_id] += jobs::compute_of(holding.held);
      if (holding.permanent)
        --used_[holding.user_id].jobs;  // a replica is not one of the jobs a quota counts
    }
  }

  Verdict judge(std::size_t place, const Candidate& candidate) {
    Verdict verdict{.place = place, .start = false, .gpus = {}, .cause = {}};
    const std::pair alike(candidate.demand.get(), candidate.time_limit);
    if (const auto known = refused_.find(alike); known != refused_.end()) {
      verdict.cause = known->second;
      return verdict;
    }
    Cause cause = decide(candidate, verdict);
    if (verdict.start) {
      refused_.clear();
    } else {
      // A reservation that was made just now may hold back those before which it was not made.
      if (std::exchange(reserved_now_, false)) refused_.clear();
      verdict.cause = refused_[alike] = std::make_shared<const Cause>(std::move(cause));
    }
    return verdict;
  }

  static std::vector<engines::GpuNeed> gpu_needs(const std::vector<RankGroup>& groups) {
    std::vector<engines::GpuNeed> out;
    for (const auto& rank : expand_ranks(groups)) out.push_back(gpu_need(rank.need));
    return out;
  }

 private:
  Cause decide(const Candidate& candidate, Verdict& verdict) {
    const ResourceTotal& need = candidate.demand->total;
    Cause cause = why_not(candidate, need);
    if (cause.reason != Reason::none) return cause;
    auto grants = gpus_[candidate.demand->group_id].place(gpu_needs(candidate.demand->groups));
    if (!grants) {
      reserve(groups_[candidate.demand->group_id], candidate, holdings_of_group(candidate.demand->group_id));
      return {.reason = Reason::waiting_for_capacity,
              .detail = {"没有合适的空闲 GPU", "no GPU with enough room is free"}};
    }
    start(candidate, need);
    verdict.start = true;
    verdict.gpus = std::move(*grants);
    return {};
  }

  void reserve(Pool& pool, const Candidate& head, std::vector<Holding> holdings) {
    if (pool.reserved) return;
    pool.reserve(head, head.demand->total, std::move(holdings));
    reserved_now_ = true;
  }

  Cause why_not(const Candidate& candidate, const ResourceTotal& need) {
    const auto group = snapshot_.groups.find(candidate.demand->group_id);
    if (group == snapshot_.groups.end()) return {.reason = Reason::group_unavailable};
    if (auto never = check_ever_fits(group->second, candidate.demand->groups); !never.ok())
      return {.reason = Reason::exceeds_group, .detail = never.error().message};
    if (auto cause = quota_cause(candidate, need); cause.reason != Reason::none) return cause;
    if (!group->second.usable) return {.reason = Reason::waiting_for_engine, .detail = group->second.trouble};
    return capacity_cause(candidate, need);
  }

  Cause quota_cause(const Candidate& candidate, const ResourceTotal& need) {
    const auto quota = snapshot_.quotas.find(candidate.demand->user_id);
    if (quota == snapshot_.quotas.end()) return {};
    auto verdict =
        quotas::check(quota->second, used_[candidate.demand->user_id], jobs::compute_of(need), snapshot_.now);
    Pool& pool = users_[candidate.demand->user_id];
    switch (verdict.admission) {
      case quotas::Admission::exceeds_max_quota:
        return {.reason = Reason::exceeds_max_quota, .detail = std::move(verdict.detail)};
      case quotas::Admission::quota_expired: {
        const bool later = quota->second.start_time && snapshot_.now < *quota->second.start_time;
        return {.reason = later ? Reason::quota_not_yet_valid : Reason::quota_expired,
                .detail = std::move(verdict.detail)};
      }
      case quotas::Admission::waiting_for_quota:
        reserve(pool, candidate, holdings_of_user(candidate.demand->user_id));
        return {.reason = Reason::waiting_for_quota, .detail = std::move(verdict.detail)};
      case quotas::Admission::fits:
        break;
    }
    if (pool.may_overtake(candidate, need, snapshot_.now)) return {};
    return {.reason = Reason::waiting_for_turn,
            .detail = {"您排在前面的作业正在等待配额", "a job of yours that came first waits for the quota"}};
  }

  Cause capacity_cause(const Candidate& candidate, const ResourceTotal& need) {
    Pool& pool = groups_[candidate.demand->group_id];
    if (!fits(need, pool.free)) {
      reserve(pool, candidate, holdings_of_group(candidate.demand->group_id));
      return {.reason = Reason::waiting_for_capacity, .detail = shortage(need, pool.free, pool.capacity)};
    }
    if (pool.may_overtake(candidate, need, snapshot_.now)) return {};
    return {.reason = Reason::waiting_for_turn,
            .detail = {"排在前面的作业正在等待资源", "a job that came first waits for these resources"}};
  }

  void start(const Candidate& candidate, const ResourceTotal& need) {
    groups_[candidate.demand->group_id].take(need);
    if (auto it = users_.find(candidate.demand->user_id); it != users_.end()) it->second.take(need);
    used_[candidate.demand->user_id] += jobs::compute_of(need);
    started_.push_back({.user_id = candidate.demand->user_id,
                        .group_id = candidate.demand->group_id,
                        .held = need,
                        .since = snapshot_.now,
                        .ends_by = candidate.time_limit.count() > 0
                                       ? std::optional<Time>(snapshot_.now + candidate.time_limit)
                                       : std::nullopt});
  }

  template <class Belongs>
  std::vector<Holding> holdings_that(Belongs belongs) const {
    std::vector<Holding> out;
    std::copy_if(snapshot_.holdings.begin(), snapshot_.holdings.end(), std::back_inserter(out), belongs);
    std::copy_if(started_.begin(), started_.end(), std::back_inserter(out), belongs);
    return out;
  }
  std::vector<Holding> holdings_of_group(const std::string& id) const {
    return holdings_that([&](const Holding& h) { return h.group_id == id; });
  }
  std::vector<Holding> holdings_of_user(const std::string& id) const {
    return holdings_that([&](const Holding& h) { return h.user_id == id; });
  }

  const Snapshot& snapshot_;
  std::map<std::string, Pool> groups_, users_;
  std::map<std::string, engines::GpuPool> gpus_;
  std::map<std::string, quotas::Compute> used_;
  std::vector<Holding> started_;
  /// Two that ask alike get the same answer as long as nothing starts and nothing is reserved between them.
  std::map<std::pair<const Demand*, Duration>, std::shared_ptr<const Cause>> refused_;
  bool reserved_now_ = false;
};

}  // namespace

engines::GpuNeed gpu_need(const ResourceRequest& need) {
  using Mode = engines::GpuNeed::Mode;
  constexpr std::int64_t kGb = 1LL << 30;
  const Mode mode = need.gpu.share == GpuShare::vgpu  ? Mode::share
                    : need.gpu.share == GpuShare::mig ? Mode::slice
                                                      : Mode::whole;
  return {.mode = mode,
          .count = need.gpu.count,
          .memory_bytes = need.gpu.memory_gb * kGb,
          .cores_percent = need.gpu.cores,
          .profile = need.gpu.mig};
}

Result<void> check_ever_fits(const Group& group, const std::vector<RankGroup>& ranks) {
  const ResourceTotal need = total_of(ranks);
  const ResourceTotal capacity = with_devices_deciding(group.capacity);
  if (!fits(need, capacity)) return Error{Code::unsatisfiable, shortage(need, capacity, capacity)};
  if (!group.gpus.can_ever_place(Round::gpu_needs(ranks)))
    return Error{
        Code::unsatisfiable,
        {"资源组没有能满足此请求的 GPU", "the resource group has no GPUs that could ever satisfy this"}};
  return {};
}

std::vector<Verdict> admit(const Snapshot& snapshot) {
  std::vector<std::size_t> order(snapshot.queue.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
    const Candidate &a = *snapshot.queue[left], &b = *snapshot.queue[right];
    return std::tuple(!a.urgent, -a.priority, a.queued_at, std::string_view(a.id)) <
           std::tuple(!b.urgent, -b.priority, b.queued_at, std::string_view(b.id));
  });
  Round round(snapshot);
  std::vector<Verdict> out;
  out.reserve(order.size());
  for (const std::size_t place : order) out.push_back(round.judge(place, *snapshot.queue[place]));
  return out;
}

}  // namespace lathe::admission
