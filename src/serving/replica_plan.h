#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jobs/plan/command.h"
#include "serving/serving.h"
#include "serving/serving_store.h"

namespace lathe::serving {

/// The placeholders a command may name: model_dir, volume_dir, port, name.
std::vector<algorithms::NamedValue> places(const VersionSpec& spec, const std::string& service_name,
                                           int port);

inline constexpr std::string_view kModelTarget = "/workspace/model";
inline constexpr std::string_view kVolumeTarget = "/workspace/volume";
inline constexpr std::string_view kCodeTarget = "/workspace/code";

/// What the engine is to run for one replica. Errors: the model or a volume is not there (any more).
struct ReplicaPlace {
  std::string replica_id;
  int port = 0;
  std::vector<engines::GpuGrant> grants;
  std::string log_dir;
};
Result<engines::LaunchPlan> make_plan(db::Transaction& tx, const Parts& parts,
                                      const store::DeploymentRow& deployment, const VersionSpec& spec,
                                      const ReplicaPlace& place);

/// The run of a replica: `replica-<id>`.
std::string run_id_of(std::string_view replica_id);
/// The replica's id; "" for any other run.
std::string replica_of_run(std::string_view run_id);

/// The same for the command's own check, and the variables it may use.
std::vector<jobs::Placeholder> placeholders(const VersionSpec& spec, const std::string& name, int port);
std::vector<std::string> env_names(const VersionSpec& spec);

}  // namespace lathe::serving
