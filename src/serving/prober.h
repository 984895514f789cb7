#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "serving/health.h"

namespace lathe::serving {

/// Asks the replicas' ports whether they answer, all of them from one thread that none can block. One that
/// has not answered yet is asked very often, so that its first request need not wait. Safe from any thread.
class Prober {
 public:
  struct Target {
    std::string id;    ///< of the replica
    std::string host;  ///< an IPv4 address
    int port = 0;
    std::string path;  ///< to GET; "": accepting a connection is an answer
    bool operator==(const Target&) const = default;
  };
  /// `changed(replica id)` is called from the prober's thread when the kind of a replica's answer changes,
  /// and at every further answer of one that was good once and is not.
  explicit Prober(std::function<void(const std::string&)> changed);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  /// Asks these from now on, and no others. What is known of those that stay is kept.
  void watch(std::vector<Target> targets);
  Health health(const std::string& replica_id) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Probe;

  void loop();
  void begin(Probe& probe, Clock::time_point now);
  void advance(Probe& probe, short ready, Clock::time_point now);
  void finish(Probe& probe, Health::Answer answer, int status, Clock::time_point now);
  void wake() const;

  const std::function<void(const std::string&)> changed_;
  const Fd wake_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Probe>> probes_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace lathe::serving
