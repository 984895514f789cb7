#include "engines/gpu/gpu_pool.h"

#include <algorithm>

namespace lathe::engines {

GpuPool::GpuPool(std::vector<GpuDevice> devices) : devices_(std::move(devices)), held_(devices_.size()) {}

std::int64_t GpuPool::free_devices() const {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < devices_.size(); ++i)
    count += devices_[i].slices.empty() && !held_[i].whole && held_[i].shares == 0;
  return count;
}

void GpuPool::hold(const GpuGrant& grant) {
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i].uuid != grant.uuid) continue;
    Held& held = held_[i];
    if (!grant.mig_uuid.empty()) {
      held.slices.push_back(grant.mig_uuid);
    } else if (grant.share) {
      ++held.shares;
      held.memory_bytes += grant.share_memory_bytes;
      held.cores_percent += grant.share_cores_percent;
    } else {
      held.whole = true;
    }
  }
}

std::optional<GpuGrant> GpuPool::place_one(const GpuNeed& need) {
  const std::size_t none = devices_.size();
  std::size_t best = none;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    const GpuDevice& device = devices_[i];
    const Held& held = held_[i];
    if (need.mode == GpuNeed::Mode::slice) {
      for (const auto& slice : device.slices) {
        const bool taken = std::find(held.slices.begin(), held.slices.end(), slice.uuid) != held.slices.end();
        if (taken || (!need.profile.empty() && slice.profile != need.profile)) continue;
        return GpuGrant{.index = device.index,
                        .uuid = device.uuid,
                        .mig_uuid = slice.uuid,
                        .gpu_instance = slice.gpu_instance,
                        .compute_instance = slice.compute_instance};
      }
      continue;
    }
    if (!device.slices.empty() || held.whole) continue;
    if (need.mode == GpuNeed::Mode::whole) {
      if (held.shares == 0) return GpuGrant{.index = device.index, .uuid = device.uuid};
      continue;
    }
    const bool fits = held.memory_bytes + need.memory_bytes <= device.memory_bytes &&
                      held.cores_percent + need.cores_percent <= 100;
    if (fits && (best == none || held.memory_bytes > held_[best].memory_bytes)) best = i;
  }
  if (best == none) return std::nullopt;
  return GpuGrant{.index = devices_[best].index,
                  .uuid = devices_[best].uuid,
                  .share = true,
                  .share_memory_bytes = need.memory_bytes,
                  .share_cores_percent = need.cores_percent};
}

std::optional<std::vector<std::vector<GpuGrant>>> GpuPool::place(const std::vector<GpuNeed>& needs) {
  GpuPool trial = *this;
  std::vector<std::vector<GpuGrant>> out;
  for (const auto& need : needs) {
    auto& grants = out.emplace_back();
    for (std::int64_t i = 0; i < need.count; ++i) {
      auto grant = trial.place_one(need);
      if (!grant) return std::nullopt;
      trial.hold(*grant);
      grants.push_back(std::move(*grant));
    }
  }
  *this = std::move(trial);
  return out;
}

bool GpuPool::can_ever_place(const std::vector<GpuNeed>& needs) const {
  return GpuPool(devices_).place(needs).has_value();
}

}  // namespace lathe::engines
