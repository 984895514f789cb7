#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engines/engine.h"

namespace lathe::engines {

/// An image on its way into a daemon: one tar.
struct ImageTar {
  std::uint64_t size = 0;  ///< bytes
  std::string id;          ///< what the daemon will know the image by: its configuration's digest
  /// Hands the bytes over, from the first; an error of the sink ends it and comes back.
  std::function<Result<void>(const std::function<Result<void>(std::string_view)>& sink)> write;
};

/// Runs plans in containers of Docker or Podman, by the Docker Engine API on a Unix socket of this machine.
/// As with ProcessEngine every run has a supervisor and a folder below `state_dir`, so neither the server's
/// nor the daemon's death is the run's. The plan's image is looked up at the daemon and loaded from the store
/// when it is not there, once for all runs that wait for it.
class DockerEngine final : public Engine {
 public:
  struct Options {
    std::string state_dir;  ///< host directory, made where absent, of this engine alone
    std::string socket;     ///< of the daemon
    /// The image of a plan, from the store. Called on any thread; may take its time.
    std::function<Result<ImageTar>(const std::string& image)> find_image;
    /// What the images that `find_image` gives are called in the daemon: this, and the hexadecimal digits of
    /// their digest. Images so named are removed from the daemon when `find_image` knows them no more. "":
    /// none is.
    std::string image_prefix;
    Duration unload_interval{60'000};  ///< between two looks for those
    /// See SupervisedRuns.
    std::vector<std::string> supervisor = {"/proc/self/exe", "supervise"};
    std::string gpus = "requests";  ///< how GPUs are asked for: "requests" (nvidia), "cdi"
    Duration retry{2'000};          ///< between attempts to load an image while the daemon does not answer
  };
  /// The daemon need not be there yet. Throws std::runtime_error if the state directory cannot be used.
  explicit DockerEngine(Options options);
  ~DockerEngine() override;

  std::string_view name() const override { return "docker"; }
  Capabilities capabilities() const override;
  Result<void> start(const LaunchPlan& plan) override;
  Result<RunStatus> inspect(const std::string& run_id) override;
  Result<void> stop(const std::string& run_id, std::optional<Duration> grace) override;
  Result<void> remove(const std::string& run_id) override;
  Result<std::vector<std::string>> list() override;
  Result<Usage> usage(const std::string& run_id) override;
  void on_change(std::function<void(const std::string& run_id)> callback) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The daemon's socket on this machine: Docker's, or Podman's; "" if there is none.
std::string find_daemon();

}  // namespace lathe::engines
