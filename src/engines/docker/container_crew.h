#pragma once

#include <memory>
#include <string>

#include "engines/supervised/rank_body.h"
#include "engines/supervised/record.h"

namespace lathe::engines {

/// Ranks that are containers of a daemon. A container's first program is ours (init/first.cpp) and is bound
/// to the calling process by a socket and by the run's lock: it runs nothing without it, and ends with it. So
/// the daemon is needed to make a container and to remove it, and may come and go in between.
class ContainerCrew final : public Crew {
 public:
  /// `path` is the folder's on the host. All must outlive it.
  ContainerCrew(const LaunchRecord& launch, const RunFolder& folder, std::string path, const Fd& lock);
  ~ContainerCrew() override;
  std::unique_ptr<RankBody> make(std::size_t rank) override;

  struct Shared;

 private:
  const LaunchRecord& launch_;
  const RunFolder& folder_;
  const std::string path_;
  const Fd& lock_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace lathe::engines
