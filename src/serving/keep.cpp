#include "serving/keep.h"

#include <algorithm>

namespace lathe::serving {

namespace {

using std::chrono::seconds;

constexpr seconds kHealthy{60};
constexpr seconds kLongestPause{60};

bool was_healthy(const ReplicaView& r, Time now) {
  return r.ready_at && r.ended_at.value_or(now) - *r.ready_at >= kHealthy;
}

Duration pause_after(int failures) {
  if (failures <= 1) return Duration{0};
  return std::min<Duration>(kLongestPause, seconds{1LL << std::min(failures - 2, 6)});
}

}  // namespace

KeepDecision keep(int wanted, const std::vector<ReplicaView>& replicas, Time now) {
  KeepDecision out;
  std::vector<const ReplicaView*> live;
  std::optional<Time> last_end;
  for (const auto& r : replicas) {
    if (r.state == ReplicaState::starting || r.state == ReplicaState::ready ||
        r.state == ReplicaState::unready)
      live.push_back(&r);
    if (was_healthy(r, now)) out.failures = 0;
    if (r.state != ReplicaState::ended || !r.failed) continue;
    out.failures += 1;
    last_end = r.ended_at;
  }
  int surplus = static_cast<int>(live.size()) - wanted;
  if (surplus > 0) {
    // Those that serve nothing go first, then the youngest.
    std::stable_sort(live.begin(), live.end(), [](const ReplicaView* a, const ReplicaView* b) {
      const bool a_ready = a->state == ReplicaState::ready, b_ready = b->state == ReplicaState::ready;
      return a_ready != b_ready ? b_ready : a->created_at > b->created_at;
    });
    for (int i = 0; i < surplus; ++i) out.stop.push_back(live[static_cast<std::size_t>(i)]->id);
    return out;
  }
  for (const auto& r : replicas) {
    if (surplus == 0) break;
    if (r.state != ReplicaState::draining || !r.revivable) continue;
    out.revive.push_back(r.id);
    ++surplus;
  }
  if (surplus == 0) return out;
  const Time allowed = last_end ? *last_end + pause_after(out.failures) : now;
  if (allowed > now) {
    out.not_before = allowed;
  } else {
    // After failures one at a time: what is broken should not fail in numbers.
    out.launch = out.failures > 0 ? 1 : -surplus;
  }
  return out;
}

}  // namespace lathe::serving
