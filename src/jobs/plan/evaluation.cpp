#include "jobs/plan/plan_builder.h"

namespace lathe::jobs {

/// A model and data in, both read-only; results out. Nothing to go on from: a retry measures again.
Result<engines::LaunchPlan> plan_evaluation(const Job& job, const LaunchSite& site) {
  PlanBuilder builder(job, site);
  builder.add_inputs();
  builder.add_output();
  builder.add_parameters();
  return std::move(builder).build();
}

}  // namespace lathe::jobs
