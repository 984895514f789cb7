#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engines/engine.h"

namespace lathe::engines {

/// The engine of this machine: the image "host" runs as processes, every other one in containers. Both share
/// the machine's CPUs, memory and accelerators, so to those who give them out they are one engine, "process".
class EngineByImage final : public Engine {
 public:
  /// `containers` may be null: then only "host" runs.
  EngineByImage(std::unique_ptr<Engine> processes, std::unique_ptr<Engine> containers)
      : processes_(std::move(processes)), containers_(std::move(containers)) {}

  std::string_view name() const override { return processes_->name(); }
  /// Those of processes, and whether images run. Asks no daemon.
  Capabilities capabilities() const override;
  Result<void> start(const LaunchPlan& plan) override;
  Result<RunStatus> inspect(const std::string& run_id) override;
  Result<void> stop(const std::string& run_id, std::optional<Duration> grace) override;
  Result<void> remove(const std::string& run_id) override;
  Result<std::vector<std::string>> list() override;
  Result<Usage> usage(const std::string& run_id) override;
  void on_change(std::function<void(const std::string& run_id)> callback) override;

 private:
  template <class Ask>
  auto either(const Ask& ask) -> decltype(ask(std::declval<Engine&>()));

  const std::unique_ptr<Engine> processes_, containers_;
};

}  // namespace lathe::engines
