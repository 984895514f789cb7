#include "jobs/plan/plan_builder.h"

namespace lathe::jobs {

/// Data in; a model and checkpoints out. A model directory, where there is one, is what training begins with.
Result<engines::LaunchPlan> plan_pretrain(const Job& job, const LaunchSite& site) {
  PlanBuilder builder(job, site);
  builder.add_inputs();
  builder.add_output();
  builder.add_checkpoints();
  builder.add_parameters();
  return std::move(builder).build();
}

}  // namespace lathe::jobs
