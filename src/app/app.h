#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "accounts/accounts.h"
#include "accounts/audit.h"
#include "accounts/idempotency.h"
#include "algorithms/algorithms.h"
#include "app/config.h"
#include "app/data_directory.h"
#include "app/run_listeners.h"
#include "base/clock.h"
#include "base/ids.h"
#include "datasets/datasets.h"
#include "db/database.h"
#include "engines/engine.h"
#include "engines/engine_set.h"
#include "engines/gpu/nvml.h"
#include "files/files.h"
#include "gateway/gateway.h"
#include "gateway/usage.h"
#include "http/api.h"
#include "http/metrics.h"
#include "http/mounts.h"
#include "http/server.h"
#include "images/images.h"
#include "jobs/jobs_service.h"
#include "models/models.h"
#include "quotas/quotas.h"
#include "serving/serving.h"

namespace lathe::app {

/// The whole server: the only place where things are constructed. Its members stand in the order in which
/// they need each other, so that destruction, which goes from the last to the first, is the shutdown.
class App {
 public:
  /// Opens the data directory and everything in it, and listens. Nothing is answered before `start`.
  static Result<std::unique_ptr<App>> open(const Config& config);
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Adopts what runs, goes on with what was under way, and answers requests.
  Result<void> start();
  /// Takes no more requests and lets those under way end, for at most the configured time. Blocks.
  void drain();
  /// Where clients reach it.
  const std::string& url() const { return url_; }

 private:
  App(Config config, DataDirectory data) : config_(std::move(config)), data_(std::move(data)) {}
  Result<void> construct();
  Result<void> construct_accounts();
  Result<void> construct_engine();
  std::unique_ptr<engines::Engine> make_docker_engine();
  Result<void> construct_features();
  Result<void> construct_serving();
  void make_api();
  Result<void> mount_registry();
  Result<void> listen();
  void add_routes();
  void add_collectors();
  bool ready();

  const Config config_;
  std::string url_;
  std::atomic<bool> draining_{false};

  DataDirectory data_;
  SystemClock clock_;
  Uuid7Source ids_{clock_};
  std::unique_ptr<db::Database> db_;
  accounts::Audit audit_{ids_, clock_};
  std::unique_ptr<accounts::Accounts> accounts_;
  std::unique_ptr<accounts::Idempotency> idempotency_;
  engines::GpuInventory gpus_ = engines::find_gpus();
  std::unique_ptr<quotas::Quotas> quotas_;
  std::unique_ptr<files::Files> files_;
  RunListeners run_listeners_;
  std::unique_ptr<gateway::UsageLedger> usage_;
  std::unique_ptr<gateway::Gateway> gateway_;
  std::unique_ptr<datasets::Datasets> datasets_;
  std::unique_ptr<images::Images> images_;
  std::unique_ptr<engines::Engine> engine_;  // takes its images from them
  std::unique_ptr<models::Models> models_;
  std::unique_ptr<algorithms::Algorithms> algorithms_;
  engines::EngineSet engines_;
  std::unique_ptr<jobs::Platform> platform_;
  std::unique_ptr<jobs::Jobs> jobs_;
  std::unique_ptr<serving::Serving> serving_;

  http::Metrics metrics_;
  std::unique_ptr<http::Api> api_;
  std::unique_ptr<http::Handler> registry_;
  std::unique_ptr<http::Mounts> mounts_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace lathe::app
