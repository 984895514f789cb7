#pragma once

#include "jobs/plan/plan.h"

namespace lathe::jobs {

/// The steps that the kinds' plans are put together from.
class PlanBuilder {
 public:
  PlanBuilder(const Job& job, const LaunchSite& site);

  /// Code, model and input.
  void add_inputs();
  void add_output();
  /// The checkpoint directory, and from where to go on in a later attempt.
  void add_checkpoints();
  void set(std::string name, std::string value);
  /// The parameters as JSON, and the places and parameters by their names.
  void add_parameters();
  Result<engines::LaunchPlan> build() &&;

 private:
  void mount(const std::optional<HostPlace>& place, std::string_view target, bool writable);
  Result<void> add_command();
  void add_ranks();
  void add_user_environment();

  const Job& job_;
  const LaunchSite& site_;
  engines::LaunchPlan plan_;
};

}  // namespace lathe::jobs
