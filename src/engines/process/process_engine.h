#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engines/engine.h"
#include "engines/process/sandbox.h"
#include "engines/supervised/cgroup.h"

namespace lathe::engines {

/// Runs plans as processes of this machine. Each run has a supervisor, a process that outlives the server: it
/// makes the namespaces and cgroups, owns the logs, enforces the limits and records the end. What is known of
/// a run lies in its folder below `state_dir` (see record.h), so an engine that is constructed again over the
/// same folder goes on where the last one was killed.
class ProcessEngine final : public Engine {
 public:
  struct Options {
    /// Host directory, made where absent, of this engine alone.
    std::string state_dir;
    /// Starts a supervisor: this program with the run's id as one more argument, in the run's folder. Must
    /// reach supervise_main.
    std::vector<std::string> supervisor = {"/proc/self/exe", "supervise"};
    /// `hidden_paths` should name the server's data directory and configuration. The engine itself sets
    /// user_namespace and mps_directory.
    SandboxRules rules = {};
    /// Where groups are made; unset: found out.
    std::optional<CgroupTree> cgroups = {};
  };
  /// Throws std::runtime_error if the state directory cannot be used.
  explicit ProcessEngine(Options options);
  ~ProcessEngine() override;

  std::string_view name() const override { return "process"; }
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

}  // namespace lathe::engines
