#include "app/app.h"

#include <cstdlib>

#include "app/process_metrics.h"
#include "app/system_routes.h"
#include "base/log.h"

namespace lathe::app {

Result<std::unique_ptr<App>> App::open(const Config& config) {
  DataDirectory data = TRY(DataDirectory::open(config.data));
  std::unique_ptr<App> app(new App(config, std::move(data)));
  TRY(app->construct());
  return app;
}

App::~App() = default;

Result<void> App::construct() {
  db_ = TRY(db::open_sqlite({.path = data_.file("lathe.db")}));

  const char* admin_password = std::getenv("LATHE_ADMIN_PASSWORD");
  accounts::Options options;
  options.sessions = {config_.sessions.idle, config_.sessions.absolute};
  options.admin_password = admin_password ? admin_password : "";
  options.initial_password_file = data_.file("initial-admin-password");
  accounts_ = TRY(accounts::Accounts::open(*db_, audit_, ids_, clock_, options));
  // What the server starts must not find it in its environment.
  ::unsetenv("LATHE_ADMIN_PASSWORD");

  idempotency_ = std::make_unique<accounts::Idempotency>(*db_, ids_, clock_);
  quotas_ = TRY(quotas::Quotas::open(*db_, *accounts_, audit_, ids_, clock_, quotas::machine_capacity()));
  // Features go here, in the order of the members.

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
  add_routes();
  TRY(listen());
  add_collectors();
  return {};
}

void App::add_routes() {
  add_system_routes(*api_, metrics_, [this] { return ready(); });
  accounts_->add_routes(*api_);
  quotas_->add_routes(*api_);
  // Features go here, one line each.
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
  server_ = TRY(http::Server::listen(options, *api_));
  url_ = url_of(config_, address, server_->port());
  const bool loopback = address.host == "127.0.0.1" || address.host == "::1" || address.host == "localhost";
  if (!loopback && !config_.tls)
    log::warning("listening on {} without TLS: passwords and tokens travel in the clear", config_.listen);
  return {};
}

void App::add_collectors() {
  metrics_.add_collector(collect_process_metrics);
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

void App::start() {
  server_->start();
  log::info("Lathe {} listens on {}, data in {}", LATHE_VERSION, url_, data_.path());
}

void App::drain() {
  draining_ = true;
  log::info("stopping: no more requests are taken");
  server_->drain(config_.drain_timeout);
}

}  // namespace lathe::app
