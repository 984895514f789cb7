#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace lathe::engines {

/// A thread that tells when a run's folder gets a record, or its supervisor goes away; it also reaps the
/// supervisors that are children of this process. Safe from any thread.
class Watcher {
 public:
  Watcher();
  ~Watcher();
  void on_change(std::function<void(const std::string& run_id)> callback);
  /// Reports files that appear in the folder, until forget().
  void watch_folder(const std::string& run_id, const std::string& path);
  /// Reports the end of this process, once.
  void watch_process(const std::string& run_id, Fd pidfd);
  void forget(const std::string& run_id);
  /// Reports the run as changed.
  void report(const std::string& run_id);

 private:
  void run();
  void read_folders(std::set<std::string>& changed);
  void call(const std::string& run_id);

  Fd epoll_, inotify_, wake_;
  std::mutex mutex_;
  bool ending_ = false;
  std::map<int, std::string> folders_;                   ///< by watch descriptor
  std::map<int, std::pair<std::string, Fd>> processes_;  ///< by pidfd
  std::vector<std::string> reports_;
  std::function<void(const std::string&)> callback_;
  std::thread thread_;
};

}  // namespace lathe::engines
