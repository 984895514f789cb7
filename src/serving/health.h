#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "serving/replica_state.h"

/// What the answers of a replica's port mean for it. Pure.
namespace lathe::serving {

/// What the port has said lately.
struct Health {
  enum class Answer {
    unknown,  ///< not asked yet
    good,     ///< accepts connections, and answers 2xx where there is a path to ask for
    refused,  ///< nobody listens
    silent,   ///< no answer in time
    bad,      ///< another status, or not HTTP
  };
  Answer last = Answer::unknown;
  int in_a_row = 0;     ///< answers of that kind, up to now without another
  Duration lasting{0};  ///< since the first of them
  int status = 0;       ///< of a bad answer; 0: not HTTP
};

struct HealthRules {
  Duration start_limit{std::chrono::minutes{30}};  ///< from its launch to its first good answer
  int tries = 3;                                   ///< silent or bad answers until it gets no more requests
  Duration stall_limit{60'000};    ///< instead of `tries` where it has requests under way: without progress
  Duration refused_limit{10'000};  ///< nobody listens for so long: it is replaced
  Duration failing_limit{
      60'000};  ///< silent or bad for so long: it is replaced; from `stall_limit` where busy
};

/// The requests of a replica, as the gateway sees them.
struct Work {
  std::uint64_t under_way = 0;
  Duration stalled{0};  ///< while there were any, nothing of an answer has come for so long
};

enum class Finding {
  unchanged,
  ready,    ///< may get requests
  unready,  ///< may not
  replace,  ///< is to be stopped, and another started
};

struct Verdict {
  Finding finding = Finding::unchanged;
  std::string reason;  ///< "NotAnswering", "StartTimeout"; "" when ready
  Text detail;
};

/// `age`: since it was launched. A server that works on its requests one at a time does not answer meanwhile,
/// which is no reason to take it out as long as they get on.
Verdict judge(const HealthRules& rules, ReplicaState state, const Health& health, const Work& work,
              Duration age);

}  // namespace lathe::serving
