#pragma once

#include <string>

#include "jobs/jobs_store.h"
#include "jobs/plan/plan.h"
#include "jobs/spec_builder.h"

namespace lathe::jobs {

struct Options {
  std::string directory;  ///< DATA/jobs: logs and the like; made where absent
  engines::Network network = engines::Network::host;
  bool read_only_root = false;
  std::int64_t uid = engines::kJobUid, gid = engines::kJobUid;
  Duration stop_grace{20'000};
  std::int64_t max_log_bytes = std::int64_t{4} << 30;  ///< of one rank
  Duration tick{5'000};  ///< between two looks at everything, for hints that were lost
  Duration first_pause{
      500};  ///< before an engine that is away, or a lost machine's job, is tried again; doubles
};

/// Prepares what a run needs on this machine: finds its directories, makes the ones it writes to, and puts
/// the plan together. Safe from any thread.
class Launcher {
 public:
  Launcher(const Platform& platform, Options options) : platform_(platform), options_(std::move(options)) {}

  /// May be done again for the same run. not_found: something it needs is gone.
  Result<engines::LaunchPlan> prepare(const Job& job, const store::Run& run) const;

  /// The directory, opened, for the platform's own reading.
  Result<Directory> open(const JobDirectory& directory) const;
  Result<HostPlace> place_of(const JobDirectory& directory) const;

  /// DATA/jobs/ID: everything that is removed with the job.
  std::string folder_of(const std::string& job_id) const;
  std::string log_dir(const std::string& job_id, int attempt) const;
  std::string log_path(const std::string& job_id, int attempt, int rank) const;

 private:
  Result<std::optional<HostPlace>> make(const JobDirectory& directory) const;
  Result<std::string> image_of(const Job& job) const;
  Result<LaunchSite> site_of(const Job& job, const store::Run& run) const;

  const Platform& platform_;
  const Options options_;
};

/// The first of `count` ports in a row that nobody on this machine listens on now; 0: none was found.
std::uint16_t free_ports(std::size_t count);

}  // namespace lathe::jobs
