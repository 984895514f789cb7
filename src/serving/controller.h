#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "serving/keep.h"
#include "serving/serving.h"
#include "serving/serving_store.h"
#include "serving/version_builder.h"

namespace lathe::serving {

/// Keeps every started service at its replicas: launches, watches, replaces, stops, and tells the gateway who
/// is ready. One thread; everything it knows is in the database and in the engine, so it goes on after a
/// restart.
class Controller {
 public:
  Controller(const Parts& parts, const Options& options) : parts_(parts), options_(options) {}
  ~Controller();

  void start();
  /// Something has changed: look now. Safe from any thread.
  void wake();
  /// Publishes the routes at once: shares and the like take effect without a look at every replica.
  void publish();

 private:
  struct World {
    std::vector<store::DeploymentRow> deployments;
    std::vector<store::VersionRow> versions;
    std::map<std::string, std::vector<store::ReplicaRow>> replicas;  ///< by version
  };
  World load();
  void loop();
  /// True if something is on its way, so that it should look again soon.
  bool look();
  bool follow(const store::VersionRow& version, store::ReplicaRow& replica);
  void note_end(store::ReplicaRow& replica, const engines::RankEnd& end, const std::string& log_path);
  bool hold_at(const store::DeploymentRow& deployment, const store::VersionRow& version,
               const std::vector<store::ReplicaRow>& replicas);
  bool launch(const store::DeploymentRow& deployment, const store::VersionRow& version);
  void stop(const std::string& replica_id);
  void say_waiting(const store::VersionRow& version, std::string_view reason, const Text& words);
  void remove_orphans();
  Result<int> pick_port(db::Transaction& tx, const VersionSpec& spec);
  bool answers(const VersionSpec& spec, int port) const;
  void save(const store::ReplicaRow& replica);

  const Parts& parts_;
  const Options& options_;
  std::mutex mutex_, publish_mutex_;
  std::condition_variable changed_;
  bool woken_ = false, ending_ = false;
  int next_port_ = 0;
  std::thread thread_;
};

}  // namespace lathe::serving
