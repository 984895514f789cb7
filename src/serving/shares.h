#pragma once

#include <string>
#include <vector>

#include "base/fields.h"
#include "base/result.h"
#include "serving/serving_store.h"

/// The versions' shares of the traffic, in percent. Pure.
namespace lathe::serving {

struct GivenShare {
  std::string id;  ///< of a version
  std::int64_t rate = 0;
};
/// `rates`: `[{"id": VERSION, "rate": 80}]` or `[{VERSION: 80}]`.
Result<std::vector<GivenShare>> read_shares(const std::vector<Json>& list, const std::string& field);

/// Settles the shares of `all`, whose last `added` are new and have theirs. The older ones take what is
/// given; if nothing is given they yield where it is clear how: to a version that takes everything, or the
/// only one that has a share yields what the new ones take. Errors name `field` and below.
Result<void> settle_shares(std::vector<store::VersionRow>& all, std::size_t added,
                           const std::vector<GivenShare>& given, const std::string& field);

/// Must sum to 100.
Result<void> check_shares(const std::vector<store::VersionRow>& versions, const std::string& field);

/// After a change of shares: versions that now get one and had none begin a rollout, with as many replicas as
/// they need for their part of what the others bear. `before`: the shares until now, in the same order.
void begin_rollout(std::vector<store::VersionRow>& versions, const std::vector<std::int64_t>& before,
                   bool started);

}  // namespace lathe::serving
