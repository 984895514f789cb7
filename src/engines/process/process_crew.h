#pragma once

#include <string>

#include "engines/supervised/rank_body.h"
#include "engines/supervised/record.h"

namespace lathe::engines {

/// Ranks that are children of the calling process, each first of its own pid namespace.
class ProcessCrew final : public Crew {
 public:
  /// `staging`: any directory of the host. `lock` is the run's, held on by every rank. All must outlive it.
  ProcessCrew(const LaunchRecord& launch, std::string staging, const Fd& lock)
      : launch_(launch), staging_(std::move(staging)), lock_(lock) {}
  /// Enters the namespaces that the ranks share.
  Result<void> prepare() override;
  std::unique_ptr<RankBody> make(std::size_t rank) override;

 private:
  const LaunchRecord& launch_;
  const std::string staging_;
  const Fd& lock_;
};

}  // namespace lathe::engines
