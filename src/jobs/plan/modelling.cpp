#include "jobs/plan/plan_builder.h"

namespace lathe::jobs {

/// A program of the user's own: whatever it is given is there, whatever it leaves is kept.
Result<engines::LaunchPlan> plan_modelling(const Job& job, const LaunchSite& site) {
  PlanBuilder builder(job, site);
  builder.add_inputs();
  builder.add_output();
  builder.add_checkpoints();
  builder.add_parameters();
  return std::move(builder).build();
}

}  // namespace lathe::jobs
