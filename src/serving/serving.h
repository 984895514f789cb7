#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/accounts.h"
#include "algorithms/algorithms.h"
#include "base/clock.h"
#include "db/database.h"
#include "engines/engine.h"
#include "engines/gpu/gpu_pool.h"
#include "files/files.h"
#include "gateway/gateway.h"
#include "http/api.h"
#include "images/images.h"
#include "jobs/jobs_service.h"
#include "models/models.h"
#include "quotas/quotas.h"
#include "serving/autoscale.h"
#include "serving/health.h"
#include "serving/replica_state.h"

/// Deployments (the document's modelServer): versions of a model that answer requests as replicas, behind one
/// name of the gateway.
namespace lathe::serving {

struct EnvVar {
  std::string name, value;
};
/// A directory of the owner's that a replica sees. Read-only.
struct Volume {
  std::string src;  ///< under the owner's root
  std::string dst;  ///< absolute, in the replica
};

/// What a version runs. Written once; changing a service means adding a version.
struct VersionSpec {
  std::string model_version_id, model_name;
  std::string image;         ///< "host", or "name:tag" of an image that the owner may run
  std::string image_id;      ///< "" for the host
  std::string image_digest;  ///< of its manifest; "" for the host
  std::string command;       ///< shell line; "" where a preset algorithm serves the model
  std::string algorithm_id;  ///< set exactly where the command is not
  std::int64_t port = 0;     ///< the one it must listen on; 0: any, told by ${port} and $PORT
  std::string ready_path;    ///< answers 200 once it can serve; "": accepting connections is enough
  std::string request_method = "rest";
  std::vector<EnvVar> env;
  std::vector<Volume> volumes;
  std::string volume_path;       ///< under the owner's root, seen at /workspace/volume; "" for none
  bool model_in_image = false;   ///< the model's files are the image's own
  std::string hyper_parameters;  ///< JSON text as given; "" for none
  std::int64_t cpu = 1, memory_gb = 1;
  std::int64_t gpu = 0, gpu_memory_gb = 0, gpu_cores = 0;
  std::string gpu_share, mig;  ///< as in jobs: none, vgpu, mig
  std::string group_id, group_key, group_name;
  std::int64_t metric = 1;  ///< 1 requests a second, 2 concurrency, 3 GPU utilisation: of one replica
  double threshold = 100;
};
void fields(Fields& f, VersionSpec& spec);

struct Options {
  std::string folder;  ///< DATA/serving: the replicas' logs
  /// Only they may create, change and start services.
  bool administrators_only = false;
  std::string host = "127.0.0.1";
  std::uint16_t first_port = 20'000, last_port = 29'999;  ///< for replicas that take any port
  ScaleRules scale = {};
  HealthRules health = {};
  Duration drain_limit{30'000};  ///< how long the requests of a replica that is to go may take to end
  /// While no replica is ready, so many requests wait for one, for so long; 503 beyond.
  std::int64_t held_requests = 1'000;
  Duration held_limit{300'000};
  /// For metric 3: how busy each device is now, in percent by uuid; those that cannot be measured are absent.
  std::function<std::map<std::string, int>()> gpu_use = [] { return std::map<std::string, int>{}; };
};

/// Everything serving needs. Must outlive it.
struct Parts {
  db::Database& db;
  accounts::Accounts& accounts;
  accounts::Audit& audit;
  quotas::Quotas& quotas;
  files::Files& files;
  images::Images& images;
  models::Models& models;
  algorithms::Algorithms& algorithms;
  engines::Engine& engine;
  gateway::Gateway& gateway;
  IdSource& ids;
  const Clock& clock;
  /// All the machine's accelerators, with what jobs and replicas hold marked.
  std::function<engines::GpuPool(db::Transaction&)> gpus;
  /// engines::EngineSet::granting()
  std::mutex& granting;
};

/// Safe from any thread.
class Serving : public quotas::UsageSource, public jobs::HoldingSource {
 public:
  static Result<std::unique_ptr<Serving>> open(const Parts& parts, Options options);

  /// Adopts the replicas that run, and begins to keep every started service at its replicas.
  virtual void start() = 0;
  /// A hint that a run of the engine has changed; every run may be told, others' are ignored. Must not be
  /// called after the destructor has begun.
  virtual void run_changed(const std::string& run_id) = 0;
  /// What every live replica holds of the accelerators.
  virtual std::vector<engines::GpuGrant> held_gpus(db::Transaction& tx) = 0;
  /// 8.1–8.5 and /api/v1/deployments.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::serving
