#pragma once

#include <mutex>

#include "http/slice.h"
#include "jobs/jobs_service.h"
#include "jobs/jobs_wire.h"

namespace lathe::jobs {

/// What the routes call. See jobs_service.h.
class Service final : public Jobs {
 public:
  Service(const Platform& platform, Options options);
  ~Service() override;
  Result<void> construct();

  void add_holdings(HoldingSource& source) override { reconciler_.add_holdings(source); }
  std::vector<HoldingSource::Held> held_by_jobs() const override;
  void wake() override { reconciler_.wake(); }
  void run_changed(const std::string& run_id) override { reconciler_.run_changed(run_id); }
  Result<void> start() override;
  void stop() override { reconciler_.stop(); }
  Figures figures() const override;
  void add_routes(http::Api& api) override;

  quotas::Compute usage_of(db::Transaction& tx, std::string_view user_id) override;
  quotas::Compute total_usage(db::Transaction& tx) override;
  Result<models::TrainingOutput> output_of(std::string_view id, const http::Identity& who,
                                           std::string_view field) override;

  // Creation. The answer is the job's id; a repetition with the same Idempotency-Key gives the same one.
  Result<std::string> create(http::Call& call, CreateTask task, JobKind kind);
  Result<std::string> create(http::Call& call, CreateEvaluation evaluation);

  // One job. not_found for whoever is neither its owner nor an administrator.
  Result<Job> visible_row(const http::Identity& caller, std::string_view id, std::string_view field = {});
  Result<Job> visible_job(const http::Identity& caller, std::string_view id, std::string_view field = {});
  /// With the documented request that made it.
  Result<std::pair<Job, std::string>> visible_request(const http::Identity& caller, std::string_view id,
                                                      std::string_view field);
  Result<Job> stop(http::Call& call, std::string_view id);
  Result<Job> retry(http::Call& call, std::string_view id);
  Result<void> remove(http::Call& call, std::string_view id);

  // Lists.
  Result<store::Listing> list(const http::Identity& caller, const TaskListRequest& request,
                              std::vector<JobKind> kinds);
  struct OwnFilter {
    std::string user_id, kind, status, name;
  };
  Result<std::vector<Job>> older(const http::Identity& caller, const OwnFilter& filter,
                                 const http::SliceQuery& slice);

  const Platform& platform() const { return platform_; }
  const Launcher& launcher() const { return launcher_; }

 private:
  struct Hook {
    std::mutex mutex;
    Reconciler* reconciler = nullptr;
  };

  Result<std::string> insert(http::Call& call, NewJob made, std::string request);
  Result<bool> done_before(http::Call& call, const std::string& id);
  void add_guards();
  void explain_waiting(Job& job) const;
  void sweep_trash();
  void remove_files(const std::string& job_id);

  const Platform platform_;
  const Options options_;
  Lifecycle lifecycle_;
  Launcher launcher_;
  Board board_;
  Monitor monitor_;
  Reconciler reconciler_;
  std::shared_ptr<Hook> hook_;
};

}  // namespace lathe::jobs
