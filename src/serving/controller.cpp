#include "serving/controller.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

namespace lathe::serving {

namespace {

using Steady = std::chrono::steady_clock;

constexpr Duration kSoon{100};
constexpr Duration kRetry{500};
constexpr Duration kHurriedDrain{2'000};

ReplicaView view_of(const store::ReplicaHead& row) {
  return {.id = row.id,
          .state = row.parsed_state(),
          .failed = row.failed(),
          .revivable = row.stop_reason.empty(),
          .created_at = row.created_at,
          .ready_at = row.ready_at,
          .ended_at = row.ended_at};
}

}  // namespace

Controller::Controller(const Parts& parts, const Options& options)
    : parts_(parts),
      options_(options),
      scaler_(options.scale, options.gpu_use),
      replicas_(parts, options, [this](const std::string& id) { wake(id); }) {}

Controller::~Controller() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Controller::start() {
  parts_.gateway.listen({.waiting =
                             [this](const std::string& service_id) {
                               {
                                 const std::scoped_lock lock(mutex_);
                                 if (asleep_.erase(service_id) == 0) return;
                                 work_.woken.insert(service_id);
                                 woken_ = true;
                               }
                               changed_.notify_all();
                             },
                         .drained = [this](const std::string& replica_id) { wake(replica_id); }});
  replicas_.adopt();
  // What was ready when the last server ended is, until it is found otherwise.
  publish();
  thread_ = std::thread([this] { loop(); });
}

void Controller::wake() {
  {
    const std::scoped_lock lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Controller::wake(const std::string& replica_id) {
  {
    const std::scoped_lock lock(mutex_);
    work_.replicas.insert(replica_id);
    woken_ = true;
  }
  changed_.notify_all();
}

void Controller::hurry(const std::string& deployment_id) {
  {
    const std::scoped_lock lock(mutex_);
    hurried_.insert(deployment_id);
  }
  wake();
}

void Controller::again_in(Duration time) {
  next_look_ = std::min(next_look_, Steady::now() + time);
}

void Controller::loop() {
  Work work{.replicas = {}, .woken = {}, .everything = true};
  while (true) {
    try {
      next_look_ = Steady::now() + options_.scale.tick;
      look(work);
    } catch (const std::exception& bug) {
      log::error("serving: {}", bug.what());
    }
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, std::min(next_look_, next_tick_), [this] { return woken_ || ending_; });
    if (ending_) return;
    woken_ = false;
    work = std::exchange(work_, {});
  }
}

void Controller::look(const Work& work) {
  Work all = work;
  const bool is_tick = Steady::now() >= next_tick_;
  all.everything = all.everything || is_tick;
  World world = load();
  follow(all, world);
  for (const auto& deployment_id : all.woken) wake_up(deployment_id, world);
  if (is_tick) {
    next_tick_ = Steady::now() + options_.scale.tick;
    tick(world);
  }
  for (const auto& deployment : world.deployments) settle(deployment, world);
  if (routes_changed_ || is_tick) {
    routes_changed_ = false;
    publish();
  }
}

/// One that is on its way is looked at every time, one that is ready when there is a hint or a tick.
bool Controller::is_due(const store::ReplicaHead& replica, const Work& work) const {
  if (!replica.live()) return false;
  return replica.state != "ready" || work.everything || work.replicas.contains(replica.id);
}

void Controller::follow(const Work& work, World& world) {
  std::set<std::string> hurried;
  {
    const std::scoped_lock lock(mutex_);
    std::erase_if(hurried_, [&](const auto& id) {
      return std::none_of(world.deployments.begin(), world.deployments.end(),
                          [&](const auto& deployment) { return deployment.id == id && !deployment.started; });
    });
    hurried = hurried_;
  }
  std::vector<const store::VersionRow*> versions;
  std::vector<const store::ReplicaHead*> replicas;
  for (const auto& version : world.versions) {
    versions.push_back(&version);
    for (auto& replica : world.replicas[version.id]) {
      const Duration limit = hurried.contains(replica.deployment_id) ? kHurriedDrain : options_.drain_limit;
      if (is_due(replica, work) && replicas_.follow(replica, limit)) routes_changed_ = true;
      if (replica.live() && replica.state != "ready") again_in(kSoon);
      replicas.push_back(&replica);
    }
  }
  replicas_.watch(versions, replicas);
}

void Controller::tick(World& world) {
  std::vector<Scaler::Version> versions;
  for (const auto& deployment : world.deployments) {
    const auto of = world.of(deployment);
    const auto roles = world.roles(of);
    for (std::size_t i = 0; i < of.size(); ++i) {
      const auto& version = *of[i];
      if (!deployment.started || version.rate <= 0) continue;
      const auto& replicas = world.replicas[version.id];
      Scaler::Version& to = versions.emplace_back();
      to.id = version.id;
      to.service_id = deployment.id;
      to.metric = version.spec.metric;
      to.threshold = version.spec.threshold;
      to.rate = static_cast<int>(version.rate);
      to.bounds = {static_cast<int>(version.min_replicas), static_cast<int>(version.max_replicas)};
      to.desired = static_cast<int>(version.desired);
      to.ready = count_of(replicas, {"ready"});
      to.running = count_of(replicas, {"starting", "ready", "unready"});
      to.may_shrink = version.rolled_out && !roles[i].retiring;
      if (to.metric == 3) to.gpus = replicas_.gpus_of(replicas);
    }
  }
  const auto load = parts_.gateway.load();
  const auto decisions = scaler_.tick(load, versions, parts_.clock.now());
  for (const auto& decision : decisions)
    for (auto& version : world.versions)
      if (version.id == decision.version_id)
        apply(version, decision.after, name(decision.reason), decision.words);
  for (const auto& service : load.services) {
    const std::scoped_lock lock(mutex_);
    if (service.queued > 0 && asleep_.contains(service.service_id)) {
      work_.woken.insert(service.service_id);
      woken_ = true;
    }
  }
}

void Controller::wake_up(const std::string& deployment_id, World& world) {
  for (auto& version : world.versions) {
    if (version.deployment_id != deployment_id || version.rate <= 0 || version.desired > 0) continue;
    scaler_.woken(deployment_id, version.id, parts_.clock.now());
    apply(version, static_cast<int>(std::max<std::int64_t>(1, version.min_replicas)),
          name(ScaleReason::woken), {"休眠中收到请求", "a request came while it slept"});
  }
}

void Controller::apply(store::VersionRow& version, int desired, std::string_view reason, const Text& words) {
  bool applied = false;
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    auto row = store::version(tx, version.id);
    // What a user has changed meanwhile was not what was decided about.
    if (!row || row->desired != version.desired || row->rate != version.rate) return {};
    applied = true;
    store::insert_event(tx, {.deployment_id = version.deployment_id,
                             .id = parts_.ids.next(),
                             .at = parts_.clock.now(),
                             .version_id = version.id,
                             .replica_id = {},
                             .kind = "scale",
                             .reason = std::string(reason),
                             .replicas_before = row->desired,
                             .replicas_after = desired,
                             .zh = words.zh,
                             .en = words.en});
    row->desired = desired;
    store::update(tx, *row);
    return {};
  });
  if (!written.ok()) {
    log::error("version {}: {}", version.id, written.error().describe(Language::en));
    return;
  }
  if (!applied) return again_in(Duration{0});
  log::info("version {}: {} → {} replicas, {}: {}", version.id, version.desired, desired, reason, words.en);
  version.desired = desired;
  routes_changed_ = true;
}

void Controller::settle(const store::DeploymentRow& deployment, World& world) {
  const auto of = world.of(deployment);
  const auto roles = world.roles(of);
  const bool replaces = std::any_of(of.begin(), of.end(), [&](const auto* version) {
    return version->rate <= 0 && count_of(world.replicas[version->id], {"starting", "ready", "unready"}) > 0;
  });
  for (std::size_t i = 0; i < of.size(); ++i) {
    const auto& version = *of[i];
    if (!deployment.started) {
      hold(deployment, version, 0, world.replicas[version.id]);
      continue;
    }
    if (roles[i].rolled_out && !version.rolled_out)
      for (auto& row : world.versions)
        if (row.id == version.id) note_rolled_out(row, replaces);
    hold(deployment, version, roles[i].hold, world.replicas[version.id]);
  }
}

void Controller::note_rolled_out(store::VersionRow& version, bool replaces) {
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    auto row = store::version(tx, version.id);
    if (!row || row->desired != version.desired || row->rate != version.rate) return {};
    row->rolled_out = true;
    store::update(tx, *row);
    store::insert_event(tx, {.deployment_id = version.deployment_id,
                             .id = parts_.ids.next(),
                             .at = parts_.clock.now(),
                             .version_id = version.id,
                             .replica_id = {},
                             .kind = "rollout",
                             .reason = "RolledOut",
                             .replicas_before = {},
                             .replicas_after = version.desired,
                             .zh = replaces ? "已就绪，被替换的版本开始停止" : "已就绪",
                             .en = replaces ? "ready; the versions it replaces are drained" : "ready"});
    return {};
  });
  if (!written.ok()) return;
  version.rolled_out = true;
  routes_changed_ = true;
}

void Controller::hold(const store::DeploymentRow& deployment, const store::VersionRow& version, int count,
                      const std::vector<store::ReplicaHead>& replicas) {
  std::vector<ReplicaView> views;
  views.reserve(replicas.size());
  for (const auto& replica : replicas) views.push_back(view_of(replica));
  const Time now = parts_.clock.now();
  const auto decision = keep(count, views, now);
  for (const auto& id : decision.revive) routes_changed_ = replicas_.revive(id) || routes_changed_;
  for (const auto& id : decision.stop) {
    routes_changed_ = replicas_.drain(id) || routes_changed_;
    again_in(Duration{0});
  }
  if (decision.not_before) {
    again_in(*decision.not_before - now);
    say_waiting(version, "BackOff",
                {fmt::format("实例连续失败 {} 次，稍后重试", decision.failures),
                 fmt::format("replicas failed {} times in a row; the next starts a little later",
                             decision.failures)});
    return;
  }
  for (int i = 0; i < decision.launch; ++i) {
    if (const auto refusal = replicas_.launch(deployment, version)) {
      again_in(kRetry);
      if (!refusal->reason.empty()) say_waiting(version, refusal->reason, refusal->words);
      return;
    }
    again_in(Duration{0});
  }
  if (!version.waiting.empty()) say_waiting(version, "", {});
}

void Controller::say_waiting(const store::VersionRow& version, std::string_view reason, const Text& words) {
  if (version.waiting == reason && version.waiting_en == words.en) return;
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    auto row = store::version(tx, version.id);
    if (!row) return {};
    row->waiting = reason;
    row->waiting_zh = words.zh;
    row->waiting_en = words.en;
    store::update(tx, *row);
    return {};
  });
  if (!written.ok()) log::error("version {}: {}", version.id, written.error().describe(Language::en));
  routes_changed_ = true;
}

}  // namespace lathe::serving
