#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/result.h"
#include "engines/docker/daemon.h"
#include "engines/docker/docker_engine.h"

namespace lathe::engines {

/// Brings images into the daemon on a thread of its own, one at a time and each once, however many wait; and
/// removes those that the store does not have any more, as far as no container needs them.
class ImageLoader {
 public:
  struct Outcome {
    std::string id;              ///< of the image in the daemon
    std::optional<Error> error;  ///< it cannot be had
  };
  using Done = std::function<void(const Outcome&)>;
  using Find = std::function<Result<ImageTar>(const std::string& image)>;

  /// `prefix` and `unload_every`: see DockerEngine::Options.
  ImageLoader(const Daemon& daemon, Find find, Duration retry, std::string prefix, Duration unload_every);
  /// Lets go of what is under way; nobody is told any more.
  ~ImageLoader();

  /// The image's id, if the daemon has it now. Errors are the daemon's or the store's.
  Result<std::optional<std::string>> look(const std::string& image);
  /// Calls `done` on the loader's thread when the daemon has the image, or nobody has. As long as the daemon
  /// does not answer, it goes on trying.
  void want(const std::string& image, Done done);

 private:
  void run();
  Outcome fetch(const std::string& image);
  void unload();
  bool pause();

  const Daemon& daemon_;
  const Find find_;
  const Duration retry_, unload_every_;
  const std::string prefix_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::map<std::string, std::string> ids_;  ///< by the plans' names; what was once found out
  std::deque<std::pair<std::string, Done>> wanted_;
  std::thread thread_;
};

}  // namespace lathe::engines
