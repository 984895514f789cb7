#include <algorithm>

#include "serving/controller.h"

/// What the controller knows at one moment, and what the gateway is told of it.
namespace lathe::serving {

namespace {

/// Told to those who are to try again, where no replica was ever ready.
constexpr Duration kUnknownStart = std::chrono::seconds{5};
constexpr std::pair kRetryAfter{std::chrono::seconds{1}, std::chrono::seconds{120}};

/// How long the last replica that became ready took to.
std::optional<Duration> last_start(const std::vector<store::ReplicaHead>& replicas) {
  const auto it = std::find_if(replicas.rbegin(), replicas.rend(),
                               [](const auto& replica) { return replica.ready_at.has_value(); });
  if (it == replicas.rend()) return std::nullopt;
  return *it->ready_at - it->created_at;
}

bool is_asleep(const std::vector<const store::VersionRow*>& versions) {
  bool shared = false;
  for (const auto* version : versions) {
    if (version->rate <= 0) continue;
    shared = true;
    if (version->desired > 0) return false;
  }
  return shared;
}

}  // namespace

int Controller::count_of(const std::vector<store::ReplicaHead>& replicas,
                         std::initializer_list<std::string_view> states) {
  return static_cast<int>(std::count_if(replicas.begin(), replicas.end(), [&](const auto& replica) {
    return std::find(states.begin(), states.end(), replica.state) != states.end();
  }));
}

Controller::World Controller::read(const std::function<void(db::Transaction&, World&)>& fill) {
  World world;
  const auto read = parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    world = {};
    fill(tx, world);
    return {};
  });
  if (!read.ok()) throw std::runtime_error("cannot read: " + read.error().describe(Language::en));
  for (const auto& version : world.versions) world.replicas[version.id];
  return world;
}

Controller::World Controller::load() {
  return read([](db::Transaction& tx, World& world) {
    world.deployments = store::deployments(tx);
    world.versions = store::versions(tx);
    for (auto& replica : store::replica_heads(tx))
      world.replicas[replica.version_id].push_back(std::move(replica));
  });
}

Controller::World Controller::load(const std::string& deployment_id) {
  return read([&](db::Transaction& tx, World& world) {
    auto deployment = store::deployment(tx, deployment_id);
    if (!deployment) return;
    world.deployments.push_back(std::move(*deployment));
    world.versions = store::versions_of(tx, deployment_id);
    for (auto& replica : store::replica_heads_of(tx, deployment_id))
      world.replicas[replica.version_id].push_back(std::move(replica));
  });
}

std::vector<const store::VersionRow*> Controller::World::of(const store::DeploymentRow& deployment) const {
  std::vector<const store::VersionRow*> out;
  for (const auto& version : versions)
    if (version.deployment_id == deployment.id) out.push_back(&version);
  return out;
}

std::vector<VersionRole> Controller::World::roles(const std::vector<const store::VersionRow*>& of) const {
  std::vector<VersionPart> parts;
  for (const auto* version : of) {
    const auto& all = replicas.at(version->id);
    parts.push_back({.rate = static_cast<int>(version->rate),
                     .ready = count_of(all, {"ready"}),
                     .running = count_of(all, {"starting", "ready", "unready"}),
                     .desired = static_cast<int>(version->desired),
                     .rolled_out = version->rolled_out});
  }
  return roll_out(parts);
}

gateway::ServiceRoute Controller::route_of(const World& world, const store::DeploymentRow& deployment) {
  gateway::ServiceRoute route;
  route.id = deployment.id;
  route.name = deployment.name;
  route.owner = deployment.user_id;
  route.unavailable = {"服务没有就绪的实例", "no replica of the service is ready"};
  const auto versions = world.of(deployment);
  const auto roles = world.roles(versions);
  bool may_wait = deployment.started;
  Duration start{0};
  for (std::size_t i = 0; i < versions.size(); ++i) {
    const auto& version = *versions[i];
    if (version.rate > 0 && !version.waiting.empty()) {
      may_wait = may_wait && version.waiting == "WaitingForPort";  // its last one is about to let go of it
      route.unavailable.zh += "：" + version.waiting_zh;
      route.unavailable.en += ": " + version.waiting_en;
    }
    if (version.rate > 0)
      start = std::max(start, last_start(world.replicas.at(version.id)).value_or(kUnknownStart));
    gateway::VersionRoute& to = route.versions.emplace_back();
    to.id = version.id;
    to.path = deployment.path;
    to.grpc = version.spec.request_method == "grpc";
    to.rate = deployment.started ? roles[i].weight : 0;
    if (!deployment.started) continue;
    for (const auto& replica : world.replicas.at(version.id))
      if (replica.state == "ready")
        to.upstreams.push_back({replica.id, options_.host, static_cast<std::uint16_t>(replica.port)});
  }
  if (!deployment.started) route.unavailable = {"服务已停止", "the service is stopped"};
  route.hold.max_queued = may_wait ? static_cast<std::size_t>(options_.held_requests) : 0;
  route.hold.max_wait = options_.held_limit;
  route.hold.retry_after =
      std::clamp(std::chrono::ceil<std::chrono::seconds>(start), kRetryAfter.first, kRetryAfter.second);
  return route;
}

void Controller::publish() {
  const std::scoped_lock publishing(publish_mutex_);  // an older picture must not replace a newer one
  const World world = load();
  std::vector<gateway::ServiceRoute> routes;
  std::set<std::string> asleep;
  for (const auto& deployment : world.deployments) {
    routes.push_back(route_of(world, deployment));
    if (deployment.started && is_asleep(world.of(deployment))) asleep.insert(deployment.id);
  }
  {
    // Before the routes, so that the first request that finds none ready is noticed.
    const std::scoped_lock lock(mutex_);
    for (const auto& id : work_.woken) asleep.erase(id);
    asleep_ = std::move(asleep);
  }
  parts_.gateway.set_routes(std::move(routes));
}

void Controller::publish(const std::string& deployment_id) {
  const std::scoped_lock publishing(publish_mutex_);
  const World world = load(deployment_id);
  if (world.deployments.empty()) return;  // deleted meanwhile: whoever did publishes that
  const auto& deployment = world.deployments.front();
  const bool asleep = deployment.started && is_asleep(world.of(deployment));
  {
    const std::scoped_lock lock(mutex_);
    if (asleep && !work_.woken.contains(deployment_id))
      asleep_.insert(deployment_id);
    else
      asleep_.erase(deployment_id);
  }
  parts_.gateway.set_route(route_of(world, deployment));
}

}  // namespace lathe::serving
