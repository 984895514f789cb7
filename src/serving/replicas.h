#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "serving/ports.h"
#include "serving/prober.h"
#include "serving/serving.h"
#include "serving/serving_store.h"
#include "serving/version_builder.h"

namespace lathe::serving {

/// The life of single replicas: every step is written down before it is done. For one thread.
class Replicas {
 public:
  /// `changed(replica id)` comes from another thread: look at it again.
  Replicas(const Parts& parts, const Options& options, std::function<void(const std::string&)> changed);

  /// Stops runs that belong to no replica, and claims the ports of those that do.
  void adopt();
  /// Probes exactly the live ones of these.
  void watch(const std::vector<const store::VersionRow*>& versions,
             const std::vector<const store::ReplicaHead*>& replicas);

  /// Brings one live replica's row up to what the engine and its port say. `drain_limit`: how long its
  /// requests may take to end. True if it has come into another state.
  bool follow(store::ReplicaHead& replica, Duration drain_limit);
  /// The devices of those that are ready, by replica.
  std::vector<std::vector<std::string>> gpus_of(const std::vector<store::ReplicaHead>& replicas);
  /// Why a replica more has to wait.
  struct Refusal {
    std::string reason;  ///< "WaitingForQuota", …; "" if the service was stopped meanwhile
    Text words;
  };
  /// One replica more; nothing if it is on its way.
  std::optional<Refusal> launch(const store::DeploymentRow& deployment, const store::VersionRow& version);
  /// It gets no new requests from the next publication on, and is stopped when it has ended those it has.
  bool drain(const std::string& replica_id, const std::string& reason = "", const Text& detail = {});
  /// Takes a draining one back.
  bool revive(const std::string& replica_id);

 private:
  void note_end(store::ReplicaHead& replica, const engines::RankEnd& end);
  bool save(const store::ReplicaHead& replica, const std::string& log = "");
  bool follow_running(store::ReplicaHead& replica, const engines::RunStatus& status);
  void restart_lost(const store::ReplicaHead& replica);
  Work work_of(const std::string& replica_id);

  const Parts& parts_;
  const Options& options_;
  /// What a replica had sent when it was looked at last, and since when no more has come.
  struct Progress {
    std::uint64_t sent = 0;
    std::chrono::steady_clock::time_point since;
  };
  std::map<std::string, Progress> progress_;
  Ports ports_;
  Prober prober_;
};

}  // namespace lathe::serving
