#pragma once

#include <optional>
#include <string>

#include "serving/replica_plan.h"
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
  Result<void> choose_volumes(const wire::ModelServerVersion& request, const accounts::User& owner,
                              const std::string& field, VersionSpec& spec) const;
  Result<void> choose_model(const wire::ModelServerVersion& request, const http::Identity& caller,
                            const std::string& field, VersionSpec& spec) const;
  Result<void> choose_command(const wire::ModelServerVersion& request, const std::string& field,
                              VersionSpec& spec) const;
  Result<void> choose_resources(const wire::ModelServerVersion& request, const accounts::User& owner,
                                const std::string& field, VersionSpec& spec) const;
  /// A share of a GPU has a size, and something that holds a replica to it.
  Result<void> check_share(const VersionSpec& spec, const std::string& field) const;
  const Parts& parts_;
};

/// A metric that can be measured for such a version; errors name `field`.
Result<void> check_metric(const VersionSpec& spec, const std::string& field);

/// The request's accelerators as a need of one rank.
engines::GpuNeed gpu_need(const VersionSpec& spec);
/// What one replica counts as against a quota.
quotas::Compute compute_of(const VersionSpec& spec);

}  // namespace lathe::serving
