#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "serving/keep.h"
#include "serving/replicas.h"
#include "serving/rollout.h"
#include "serving/scaler.h"
#include "serving/serving.h"
#include "serving/serving_store.h"

namespace lathe::serving {

/// Keeps every started service at its replicas: decides how many, launches, watches, replaces, drains, and
/// tells the gateway who is ready. One thread; everything it must know is in the database and in the engine,
/// so it goes on after a restart.
class Controller {
 public:
  Controller(const Parts& parts, const Options& options);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void start();
  // The rest is safe from any thread.
  /// Something has changed: look now.
  void wake();
  /// A replica has changed.
  void wake(const std::string& replica_id);
  /// The service is to be deleted: its requests get a moment only to end.
  void hurry(const std::string& deployment_id);
  /// Publishes the routes at once: shares and the like take effect without a look at every replica. Of one
  /// service, or of all.
  void publish(const std::string& deployment_id);
  void publish();
  const Scaler& scaler() const { return scaler_; }

 private:
  struct World {
    std::vector<store::DeploymentRow> deployments;
    std::vector<store::VersionRow> versions;
    std::map<std::string, std::vector<store::ReplicaHead>> replicas;  ///< by version
    std::vector<const store::VersionRow*> of(const store::DeploymentRow& deployment) const;
    std::vector<VersionRole> roles(const std::vector<const store::VersionRow*>& versions) const;
  };
  /// What has come up since the last look.
  struct Work {
    std::set<std::string> replicas, woken;
    bool everything = false;
  };
  World load();
  World load(const std::string& deployment_id);
  World read(const std::function<void(db::Transaction&, World&)>& fill);
  static int count_of(const std::vector<store::ReplicaHead>& replicas,
                      std::initializer_list<std::string_view> states);
  void loop();
  void look(const Work& work);
  bool is_due(const store::ReplicaHead& replica, const Work& work) const;
  void follow(const Work& work, World& world);
  void tick(World& world);
  void wake_up(const std::string& deployment_id, World& world);
  void settle(const store::DeploymentRow& deployment, World& world);
  /// Brings a version to its role's number of replicas.
  void hold(const store::DeploymentRow& deployment, const store::VersionRow& version, int count,
            const std::vector<store::ReplicaHead>& replicas);
  void note_rolled_out(store::VersionRow& version, bool replaces);
  void apply(store::VersionRow& version, int desired, std::string_view reason, const Text& words);
  void say_waiting(const store::VersionRow& version, std::string_view reason, const Text& words);
  gateway::ServiceRoute route_of(const World& world, const store::DeploymentRow& deployment);
  void again_in(Duration time);

  const Parts& parts_;
  const Options& options_;
  Scaler scaler_;
  std::mutex mutex_, publish_mutex_;
  std::condition_variable changed_;
  Work work_;
  bool woken_ = false, ending_ = false;
  std::set<std::string> asleep_, hurried_;
  std::chrono::steady_clock::time_point next_look_, next_tick_;
  bool routes_changed_ = false;
  Replicas replicas_;
  std::thread thread_;
};

}  // namespace lathe::serving
