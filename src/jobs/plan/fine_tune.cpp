#include "jobs/plan/plan_builder.h"

namespace lathe::jobs {

/// A model, data and a strategy in; a tuned model (or an adapter) and checkpoints out.
Result<engines::LaunchPlan> plan_fine_tune(const Job& job, const LaunchSite& site) {
  PlanBuilder builder(job, site);
  builder.add_inputs();
  builder.add_output();
  builder.add_checkpoints();
  builder.add_parameters();
  if (!job.spec.strategy.empty()) builder.set("FINE_TUNE_STRATEGY", job.spec.strategy);
  return std::move(builder).build();
}

}  // namespace lathe::jobs
