#include "app/app.h"

#include <unistd.h>

#include <cstdlib>

#include "app/gateway_metrics.h"
#include "app/process_metrics.h"
#include "app/system_routes.h"
#include "base/log.h"
#include "engines/docker/docker_engine.h"
#include "engines/engine_by_image.h"
#include "engines/process/process_engine.h"
#include "engines/supervised/runs.h"

namespace lathe::app {

namespace {

/// What this machine has to give, its accelerators included. A device in MIG mode is given by the slice only.
quotas::Compute machine_with(const engines::GpuInventory& gpus, const CapacityConfig& capacity) {
  quotas::Compute machine = quotas::machine_capacity();
  if (capacity.cpu > 0) machine.cpu = capacity.cpu;
  if (capacity.memory_gb > 0) machine.memory_gb = capacity.memory_gb;
  const bool shares = engines::mps_is_running();
  for (const auto& device : gpus.devices) {
    machine.mig += static_cast<std::int64_t>(device.slices.size());
    if (!device.slices.empty()) continue;
    machine.gpu += 1;
    if (shares) machine.vgpu += 100;  // a share is at least 1 % of a device
  }
  return machine;
}

bool is_root() {
  return ::geteuid() == 0;
}

}  // namespace

Result<std::unique_ptr<App>> App::open(const Config& config) {
  DataDirectory data = TRY(DataDirectory::open(config.data));
  std::unique_ptr<App> app(new App(config, std::move(data)));
  TRY(app->construct());
  return app;
}

App::~App() {
  // Hints come on the engine's own thread, and the engine outlives those who listen.
  run_listeners_.close();
  // These ask some that end before they do: services hold resources, models take storage.
  if (jobs_) jobs_->stop();
  if (images_) images_->stop();
}

Result<void> App::construct() {
  db_ = TRY(db::open_sqlite({.path = data_.file("lathe.db")}));
  TRY(construct_accounts());
  TRY(construct_features());
  TRY(construct_serving());
  make_api();
  add_routes();
  TRY(mount_registry());
  TRY(listen());
  add_collectors();
  return {};
}

Result<void> App::construct_accounts() {
  const char* admin_password = std::getenv("LATHE_ADMIN_PASSWORD");
  accounts::Options options;
  options.sessions = {config_.sessions.idle, config_.sessions.absolute};
  options.admin_password = admin_password ? admin_password : "";
  options.initial_password_file = data_.file("initial-admin-password");
  options.audit_retention = config_.audit.retention;
  accounts_ = TRY(accounts::Accounts::open(*db_, audit_, ids_, clock_, options));
  // What the server starts must not find it in its environment.
  ::unsetenv("LATHE_ADMIN_PASSWORD");
  idempotency_ = std::make_unique<accounts::Idempotency>(*db_, ids_, clock_);
  quotas_ = TRY(
      quotas::Quotas::open(*db_, *accounts_, audit_, ids_, clock_, machine_with(gpus_, config_.capacity)));
  return {};
}

Result<void> App::construct_features() {
  files::Options file_options;
  file_options.users_directory = data_.file("users");
  if (is_root())
    file_options.owner = Owner{static_cast<uid_t>(config_.jobs.uid), static_cast<gid_t>(config_.jobs.gid)};
  files_ = TRY(files::Files::open(*db_, *accounts_, *quotas_, audit_, ids_, clock_, file_options));
  datasets_ = TRY(datasets::Datasets::open(*db_, *accounts_, *files_, audit_, ids_, clock_));
  images_ = TRY(images::Images::open(*db_, *accounts_, *files_, audit_, ids_, clock_,
                                     {.store_directory = data_.file("images"),
                                      .unused_lifetime = config_.images.unused_lifetime,
                                      .sweep_interval = config_.images.sweep_interval,
                                      .registries = config_.images.registries,
                                      .insecure_registries = config_.images.insecure_registries}));
  TRY(construct_engine());
  models_ = TRY(models::Models::open(*db_, *accounts_, *files_, *images_, audit_, ids_, clock_,
                                     {.folder = data_.file("models")}));
  algorithms_ = TRY(algorithms::Algorithms::open(
      {.directory = config_.algorithms.directory, .code_root = "", .folder = data_.file("algorithms")}));
  quotas_->add_source(*files_);
  quotas_->add_source(static_cast<quotas::StorageSource&>(*images_));
  quotas_->add_source(static_cast<quotas::StorageSource&>(*models_));

  platform_ = std::make_unique<jobs::Platform>(jobs::Platform{*db_, *accounts_, audit_, *quotas_, *files_,
                                                              *datasets_, *images_, *models_, *algorithms_,
                                                              engines_, ids_, clock_});
  jobs::Options options;
  options.directory = data_.file("jobs");
  options.read_only_root = config_.docker.read_only_root;
  options.network = config_.jobs.network == "none" ? engines::Network::none : engines::Network::host;
  options.uid = config_.jobs.uid;
  options.gid = config_.jobs.gid;
  jobs_ = TRY(jobs::Jobs::open(*platform_, options));
  run_listeners_.add([this](const std::string& run_id) { jobs_->run_changed(run_id); });
  return {};
}

Result<void> App::construct_serving() {
  usage_ = std::make_unique<gateway::UsageLedger>(*db_, clock_);
  gateway_ = gateway::Gateway::create(
      config_.gateway,
      {.authenticate = [this](const http::Request& request) { return accounts_->authenticate(request); },
       .may_call = [](const http::Identity& caller,
                      const gateway::ServiceRoute&) { return !caller.user_id.empty(); },
       .used = [this](const http::Request& request, const http::Identity& caller, const std::string& service,
                      const gateway::Usage& usage) { usage_->record(request, caller, service, usage); }});
  auto free_gpus = [this](db::Transaction& tx) {
    engines::GpuPool pool(gpus_.devices);
    for (const auto& held : jobs_->held_by_jobs())
      for (const auto& grant : held.gpus) pool.hold(grant);
    for (const auto& grant : serving_->held_gpus(tx)) pool.hold(grant);
    return pool;
  };
  const ServingConfig& config = config_.serving;
  serving::Options options;
  options.folder = data_.file("serving");
  options.administrators_only = config.access == "administrators";
  if (config_.jobs.network == "none" && !options.administrators_only)
    log::warning(
        "jobs have no network, but services do, and any user may start one: see serving.access in the "
        "configuration");
  options.scale.tick = config.tick;
  options.scale.stable_window = config.stable_window;
  options.scale.panic_window = config.panic_window;
  options.scale.zero_grace = config.zero_grace;
  options.scale.utilisation = config.utilization;
  options.health.start_limit = config.start_timeout;
  options.health.stall_limit = config.stall_timeout;
  options.health.failing_limit = config.failing_timeout;
  options.drain_limit = config.drain_timeout;
  options.held_limit = config.hold_timeout;
  options.held_requests = config.held_requests;
  options.gpu_use = [] {
    std::map<std::string, int> use;
    for (const auto& load : engines::gpu_load()) use[load.uuid] = load.utilisation_percent;
    return use;
  };
  serving_ = TRY(
      serving::Serving::open({*db_, *accounts_, audit_, *quotas_, *files_, *images_, *models_, *algorithms_,
                              *engine_, *gateway_, ids_, clock_, free_gpus, engines_.granting()},
                             std::move(options)));
  images_->uses_are_told();
  quotas_->add_source(static_cast<quotas::UsageSource&>(*serving_));
  jobs_->add_holdings(*serving_);
  run_listeners_.add([this](const std::string& run_id) { serving_->run_changed(run_id); });
  return {};
}

/// Null: no daemon.
std::unique_ptr<engines::Engine> App::make_docker_engine() {
  const std::string socket = config_.docker.socket.empty() ? engines::find_daemon() : config_.docker.socket;
  if (socket.empty() || socket == "none") return nullptr;
  engines::DockerEngine::Options options;
  options.state_dir = data_.file("containers");
  options.socket = socket;
  options.gpus = config_.docker.gpus;
  options.image_prefix = "lathe.local/" + engines::owner_of(options.state_dir) + "/image:";
  options.unload_interval = std::min(options.unload_interval, config_.images.sweep_interval);
  options.find_image =
      [this, prefix = options.image_prefix](const std::string& digest) -> Result<engines::ImageTar> {
    // By a name, so that a clean-up of what has none leaves it alone.
    const std::string hex = digest.substr(digest.find(':') + 1);
    std::shared_ptr<images::Export> image = TRY(images_->open_export(digest, prefix + hex));
    return engines::ImageTar{image->size(), image->config_digest(),
                             [image](const auto& sink) { return image->write(sink); }};
  };
  auto engine = std::make_unique<engines::DockerEngine>(std::move(options));
  log::info("images run by the container daemon at {}", socket);
  for (const Text& shortcoming : engine->capabilities().shortcomings)
    log::warning("jobs in containers: {}", shortcoming.en);
  return engine;
}

Result<void> App::construct_engine() {
  engines::ProcessEngine::Options options;
  options.state_dir = data_.file("engine");
  options.rules.hidden_paths = {data_.path()};
  try {
    engine_ = std::make_unique<engines::EngineByImage>(
        std::make_unique<engines::ProcessEngine>(std::move(options)), make_docker_engine());
  } catch (const std::runtime_error& error) {
    return Error{Code::internal, {error.what(), error.what()}};
  }
  engines_.add({.engine = engine_.get(), .gpus = gpus_.devices});
  engine_->on_change([this](const std::string& run_id) { run_listeners_.tell(run_id); });
  for (const Text& shortcoming : engine_->capabilities().shortcomings)
    log::warning("jobs on this machine: {}", shortcoming.en);
  if (!gpus_.trouble.en.empty()) log::warning("GPUs: {}", gpus_.trouble.en);
  for (const auto& device : gpus_.devices)
    log::info("GPU {}: {}, {} GiB", device.index, device.model, device.memory_bytes >> 30);
  return {};
}

void App::make_api() {
  http::Api::Hooks hooks;
  hooks.authenticate = [this](const http::Request& request) { return accounts_->authenticate(request); };
  hooks.ids = &ids_;
  hooks.reserve_id = [this](const http::Identity& who, std::string_view key, std::string_view operation,
                            std::string_view digest) {
    return idempotency_->reserve(who, key, operation, digest);
  };
  hooks.observe = [this](std::string_view route, int status, double seconds) {
    metrics_.observe(route, status, seconds);
  };
  api_ = std::make_unique<http::Api>(std::move(hooks));
}

void App::add_routes() {
  add_system_routes(*api_, metrics_, [this] { return ready(); });
  accounts_->add_routes(*api_);
  quotas_->add_routes(*api_);
  files_->add_routes(*api_);
  datasets_->add_routes(*api_);
  images_->add_routes(*api_);
  models_->add_routes(*api_);
  algorithms_->add_routes(*api_);
  jobs_->add_routes(*api_);
  serving_->add_routes(*api_);
  usage_->add_routes(*api_);
}

Result<void> App::mount_registry() {
  registry_ =
      TRY(images_->make_registry({.public_url = config_.public_url,
                                  .tls = config_.tls.has_value(),
                                  .observe = [this](std::string_view operation, int status, double seconds) {
                                    metrics_.observe(operation, status, seconds);
                                  }}));
  mounts_ = std::make_unique<http::Mounts>(*api_);
  mounts_->add("/v2", *registry_);
  return {};
}

Result<void> App::listen() {
  const Address address = TRY(parse_address(config_.listen));
  http::ServerOptions options;
  options.host = address.host;
  options.port = address.port;
  options.io_threads = static_cast<std::size_t>(config_.io_threads);
  options.limits = config_.limits;
  options.access_log = config_.log.access;
  if (config_.tls) options.tls = http::TlsOptions{config_.tls->certificate, config_.tls->key};
  options.io_handler = &gateway_->io_handler();
  server_ = TRY(http::Server::listen(options, *mounts_));
  url_ = url_of(config_, address, server_->port());
  const bool loopback = address.host == "127.0.0.1" || address.host == "::1" || address.host == "localhost";
  if (!loopback && !config_.tls)
    log::warning("listening on {} without TLS: passwords and tokens travel in the clear", config_.listen);
  return {};
}

void App::add_collectors() {
  metrics_.add_collector(collect_process_metrics);
  metrics_.add_collector([this](http::Exposition& out) { collect_gateway_metrics(out, *gateway_); });
  metrics_.add_collector([this](http::Exposition& out) {
    const auto counters = server_->counters();
    auto number = [](std::uint64_t value) { return static_cast<double>(value); };
    out.gauge("lathe_http_connections", "Open connections.", number(counters.connections_open));
    out.counter("lathe_http_connections_total", "Connections accepted.", number(counters.connections_total));
    out.counter("lathe_http_received_requests_total", "Requests read.", number(counters.requests_total));
    out.counter("lathe_http_refused_total", "Requests and connections refused by a limit.",
                number(counters.refused_total));
    out.counter("lathe_http_received_bytes_total", "Bytes read.", number(counters.bytes_in));
    out.counter("lathe_http_sent_bytes_total", "Bytes written.", number(counters.bytes_out));
    out.gauge("lathe_http_workers", "Threads that run handlers.", number(counters.workers));
    out.gauge("lathe_http_queued_requests", "Requests waiting for a worker.", number(counters.queued));
  });
}

bool App::ready() {
  // A read that goes to the database, as any request's does.
  return !draining_.load() && quotas_->groups().ok();
}

Result<void> App::start() {
  TRY(images_->start());
  TRY(models_->start());
  TRY(jobs_->start());
  serving_->start();
  server_->start();
  log::info("Lathe {} listens on {}, data in {}", LATHE_VERSION, url_, data_.path());
  return {};
}

void App::drain() {
  draining_ = true;
  log::info("stopping: no more requests are taken");
  server_->drain(config_.drain_timeout);
}

}  // namespace lathe::app
