#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "serving/replica_state.h"

/// How a version is kept at its number of replicas. Pure.
namespace lathe::serving {

struct ReplicaView {
  std::string id;
  ReplicaState state = ReplicaState::starting;
  bool failed = false;     ///< ended by itself, or stopped because it did not answer
  bool revivable = false;  ///< draining, and nothing is wrong with it
  Time created_at{};
  std::optional<Time> ready_at, ended_at;
};

struct KeepDecision {
  int launch = 0;
  std::vector<std::string> revive;  ///< draining ones that are wanted again
  std::vector<std::string> stop;
  std::optional<Time> not_before;  ///< replicas are missing, and the next may start then
  int failures = 0;                ///< in a row, which is why
};

/// `replicas` in the order they were made. One that is only being drained is taken back before another is
/// started. A replica that failed is replaced at once the first time, then
/// after 1 s, 2 s, 4 s … up to 60 s, as long as none has been ready for a minute in between.
KeepDecision keep(int wanted, const std::vector<ReplicaView>& replicas, Time now);

}  // namespace lathe::serving
