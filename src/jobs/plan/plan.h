#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engines/launch_plan.h"
#include "jobs/job.h"
#include "jobs/plan/environment.h"

/// From what a job is to what an engine runs. Pure: the same job at the same site gives the same plan.
namespace lathe::jobs {

/// A place on the host: `path` strictly beneath `root`.
struct HostPlace {
  std::string root;
  std::string path;
};

/// What only the moment of launch knows.
struct LaunchSite {
  std::string run_id;
  std::string image = "host";  ///< what engines know it by: "host", or a digest
  int attempt = 1;
  std::string log_dir;
  std::optional<HostPlace> work, model, input, output, checkpoint;  ///< of those that the job has
  std::optional<HostPlace> algorithm;                               ///< the preset algorithm's own code
  std::optional<HostPlace> hostfile;                                ///< MPI: see mpi_hostfile
  std::vector<std::vector<engines::GpuGrant>> gpus;                 ///< for every rank
  Rendezvous rendezvous;
  std::string resume_from;  ///< newest checkpoint below the checkpoint directory; "": none
  Duration stop_grace{20'000};
  std::int64_t max_log_bytes = 0;
  engines::Network network = engines::Network::host;
  bool read_only_root = false;
  std::int64_t uid = engines::kJobUid, gid = engines::kJobUid;
};

// One a kind of job. Errors: invalid_argument (a spec that creation would have refused).
Result<engines::LaunchPlan> plan_fine_tune(const Job& job, const LaunchSite& site);
Result<engines::LaunchPlan> plan_pretrain(const Job& job, const LaunchSite& site);
Result<engines::LaunchPlan> plan_modelling(const Job& job, const LaunchSite& site);
Result<engines::LaunchPlan> plan_evaluation(const Job& job, const LaunchSite& site);

/// The kind's own.
Result<engines::LaunchPlan> make_plan(const Job& job, const LaunchSite& site);

/// An MPI job is one launcher that `mpirun`s onto this many slots.
bool is_mpi(const JobSpec& spec);
std::string mpi_hostfile(const JobSpec& spec);

}  // namespace lathe::jobs
