#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engines/gpu/gpu_pool.h"
#include "jobs/job.h"
#include "quotas/quotas.h"

/// Who may start now, and why the others wait. Pure: a picture of the moment in, verdicts out.
namespace lathe::admission {

/// Who asks where for what. Jobs that ask alike share one: thousands of a sweep are judged as quickly as one.
struct Demand {
  Demand(std::string user, std::string group, std::vector<RankGroup> ranks)
      : user_id(std::move(user)),
        group_id(std::move(group)),
        groups(std::move(ranks)),
        total(total_of(groups)) {}
  const std::string user_id;
  const std::string group_id;
  const std::vector<RankGroup> groups;
  const ResourceTotal total;
};

/// A queued job.
struct Candidate {
  std::string id;
  std::shared_ptr<const Demand> demand;  ///< never null
  int priority = 0;
  bool urgent = false;
  Time queued_at{};
  Duration time_limit{0};  ///< 0: none
};

/// What runs: a job, or a serving replica.
struct Holding {
  std::string user_id;
  std::string group_id;
  ResourceTotal held;
  Time since{};
  std::optional<Time> ends_by;  ///< by its time limit
  bool permanent = false;       ///< a service: nobody waits for its end
};

struct Group {
  std::string engine;
  ResourceTotal capacity;
  engines::GpuPool gpus;  ///< with what is held marked
  bool usable = true;     ///< false: its engine does not answer
  Text trouble;           ///< why it is not usable
};

struct Snapshot {
  Time now{};
  std::vector<std::shared_ptr<const Candidate>> queue;  ///< in any order
  std::vector<Holding> holdings;
  std::map<std::string, Group> groups;
  std::map<std::string, quotas::Quota> quotas;  ///< absent: unlimited
};

struct Verdict {
  std::size_t place;  ///< of the candidate in the snapshot's queue
  bool start = false;
  /// Of one that starts: its accelerators, a list for every rank.
  std::vector<std::vector<engines::GpuGrant>> gpus;
  /// Of one that does not: why; shared by those that wait for the same. A reason of the class `refused` means
  /// that it can never start.
  std::shared_ptr<const Cause> cause;
};

/// One verdict for every candidate, in the order of the queue: urgent ones first, then by priority, then by
/// age. A job starts whole or not at all.
///
/// The first job of a group that does not fit has a reservation: a later one may overtake it only if it fits
/// into what the group will still have once the reserved job runs, counting everything that has started since
/// that one was queued, or if its time limit ends it before the reserved job could start. So every job before
/// which nothing else is queued starts as soon as what ran when it came has ended, whatever keeps arriving
/// behind it (EASY backfill, Lifka 1995, without the need for run time estimates). The first job of a user
/// that does not fit the user's quota has the same reservation within that quota. Costs n log n, and little
/// for each of many that ask alike.
std::vector<Verdict> admit(const Snapshot& snapshot);

/// Could these ranks ever start in the group, were it empty? For the door: a request that never fits is
/// refused.
Result<void> check_ever_fits(const Group& group, const std::vector<RankGroup>& ranks);

/// What a rank asks of the accelerators.
engines::GpuNeed gpu_need(const ResourceRequest& need);

}  // namespace lathe::admission
