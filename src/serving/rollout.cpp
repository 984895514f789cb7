#include "serving/rollout.h"

#include <algorithm>

namespace lathe::serving {

namespace {

/// Fine enough that a version with one of a thousand replicas ready gets its thousandth.
constexpr int kScale = 1000;

}  // namespace

std::vector<VersionRole> roll_out(const std::vector<VersionPart>& parts) {
  std::vector<VersionRole> roles(parts.size());
  bool pending = false;
  int missing = 0, spare = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const VersionPart& part = parts[i];
    if (part.rate <= 0) {
      spare += part.ready;
      continue;
    }
    VersionRole& role = roles[i];
    role.rolled_out = part.rolled_out || part.ready >= std::max(1, part.desired);
    role.weight = part.rate * kScale;
    role.hold = part.desired;
    if (role.rolled_out) continue;
    pending = true;
    role.weight = part.rate * kScale * part.ready / std::max(1, part.desired);
    missing += part.rate * kScale - role.weight;
  }
  if (!pending) return roles;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const VersionPart& part = parts[i];
    if (part.rate > 0 || part.running == 0) continue;
    roles[i].retiring = true;
    roles[i].hold = std::max(part.desired, part.running);
    if (spare > 0) roles[i].weight = missing / spare * part.ready;
  }
  return roles;
}

int first_replicas(int running, int rate, int min, int max) {
  const int for_share = (running * rate + 99) / 100;
  return std::clamp(for_share, std::max(1, min), std::max(1, max));
}

}  // namespace lathe::serving
