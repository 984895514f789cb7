#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/launcher.h"
#include "jobs/reconciler.h"

namespace lathe::jobs {

/// Jobs: created, queued, run, watched, kept. Safe from any thread.
class Jobs : public quotas::UsageSource, public models::TrainingOutputs {
 public:
  /// All that `platform` refers to must outlive it. Registers itself with quotas, models, images, datasets
  /// and accounts: before any of them answers requests.
  static Result<std::unique_ptr<Jobs>> open(const Platform& platform, Options options);
  ~Jobs() override = default;

  /// Serving's holdings count in every decision. Before `start`.
  virtual void add_holdings(HoldingSource& source) = 0;
  /// What active jobs hold of each engine's devices now, for serving's own decisions.
  virtual std::vector<HoldingSource::Held> held_by_jobs() const = 0;
  /// Serving has given something back, say: somebody may start.
  virtual void wake() = 0;
  /// A hint that a run of an engine has changed; every run may be told, others' are ignored. Must not be
  /// called after the destructor has begun.
  virtual void run_changed(const std::string& run_id) = 0;

  /// Adopts what runs and begins to start what waits.
  virtual Result<void> start() = 0;
  /// Decides nothing any more. Before those end that it asks: the sources of add_holdings.
  virtual void stop() = 0;

  struct Figures {
    std::size_t queued = 0, active = 0;
  };
  virtual Figures figures() const = 0;

  /// Sections 4, 5, 6 and 7, /api/v1/jobs.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::jobs
