#pragma once

#include <optional>
#include <string>

#include "serving/serving.h"
#include "serving/serving_wire.h"

namespace lathe::serving {

/// Checks one requested version against everything it names, and makes its specification. Violations carry
/// `field` (e.g. `modelServerVersions[0]`) before the wrong field's name.
class VersionBuilder {
 public:
  explicit VersionBuilder(const Parts& parts) : parts_(parts) {}
  Result<store::VersionRow> build(const wire::ModelServerVersion& request, const accounts::User& owner,
                                  const http::Identity& caller, const std::string& field) const;

 private:
  Result<void> choose_model(const wire::ModelServerVersion& request, const http::Identity& caller,
                            const std::string& field, VersionSpec& spec) const;
  Result<void> choose_command(const wire::ModelServerVersion& request, const std::string& field,
                              VersionSpec& spec) const;
  Result<void> choose_resources(const wire::ModelServerVersion& request, const accounts::User& owner,
                                const std::string& field, VersionSpec& spec) const;
  const Parts& parts_;
};

/// The placeholders a command may name: model_dir, port, name.
std::vector<algorithms::NamedValue> places(const VersionSpec& spec, const std::string& service_name,
                                           int port);

inline constexpr std::string_view kModelTarget = "/workspace/model";
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

/// The request's accelerators as a need of one rank.
engines::GpuNeed gpu_need(const VersionSpec& spec);
/// What one replica counts as against a quota.
quotas::Compute compute_of(const VersionSpec& spec);

}  // namespace lathe::serving
