#pragma once

#include <vector>

/// How a service goes from one set of shares to another. Pure.
///
/// A version that is given a share is not *rolled out* until it has as many ready replicas as it is to have.
/// Until then it takes the traffic that those it has can bear, and the versions it replaces (share 0, still
/// running) keep all their replicas and take the rest. When every version with a share is rolled out, what it
/// replaces is drained and stopped. A version that never becomes ready therefore never harms: the old one
/// goes on.
namespace lathe::serving {

struct VersionPart {
  int rate = 0;     ///< the share it is to have
  int ready = 0;    ///< replicas that serve
  int running = 0;  ///< replicas that start or serve
  int desired = 0;  ///< replicas it is to have for its share
  bool rolled_out = false;
};

struct VersionRole {
  int weight = 0;  ///< of the traffic, relative to the others
  int hold = 0;    ///< replicas to keep it at now
  bool rolled_out = false;
  bool retiring = false;  ///< without a share, and kept until the others are ready
};

/// One role for each part.
std::vector<VersionRole> roll_out(const std::vector<VersionPart>& parts);

/// How many replicas a version begins with that is to bear `rate` percent of what `running` replicas bear.
int first_replicas(int running, int rate, int min, int max);

}  // namespace lathe::serving
