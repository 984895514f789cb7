#include "serving/controller.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "base/log.h"
#include "http/client.h"

namespace lathe::serving {

namespace {

constexpr std::chrono::milliseconds kSoon{50};
constexpr std::chrono::milliseconds kLater{2'000};
constexpr std::chrono::milliseconds kProbeTimeout{300};
constexpr std::int64_t kKeepEnded = 5;
constexpr std::size_t kLogTail = 4096;

sockaddr_in address_of(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  return address;
}

/// Could a replica listen there?
bool port_is_free(const std::string& host, int port) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // a port that merely lingers in TIME_WAIT is free
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const auto address = address_of(host, port);
  return bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

bool accepts_connections(const std::string& host, int port) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto address = address_of(host, port);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return true;
  pollfd wait{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  int error = 0;
  socklen_t size = sizeof error;
  return errno == EINPROGRESS && poll(&wait, 1, static_cast<int>(kProbeTimeout.count())) == 1 &&
         getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

std::string tail_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const auto size = static_cast<std::size_t>(file.tellg());
  const std::size_t length = std::min(size, kLogTail);
  std::string out(length, '\0');
  file.seekg(static_cast<std::streamoff>(size - length));
  file.read(out.data(), static_cast<std::streamsize>(length));
  for (char& c : out)
    if (static_cast<unsigned char>(c) >= 0x80 ||
        (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'))
      c = '?';
  return out;
}

std::string reason_of(const engines::RankEnd& end) {
  using engines::EndCause;
  switch (end.cause) {
    case EndCause::exited:
      return "ExitCode " + std::to_string(end.exit_code.value_or(0));
    case EndCause::signaled:
      return "Signal " + std::to_string(end.signal.value_or(0));
    case EndCause::out_of_memory:
      return "OutOfMemory";
    case EndCause::time_limit:
      return "TimeLimit";
    case EndCause::stopped:
      return "Stopped";
    case EndCause::sibling_failed:
      return "Stopped";
    case EndCause::launch_failed:
      return "EngineError";
    case EndCause::lost:
      return "NodeFailure";
  }
  return "EngineError";
}

void warn_of(const std::string& id, const Result<void>& outcome) {
  if (!outcome.ok()) log::warning("replica {}: {}", id, outcome.error().describe(Language::en));
}

bool failed(const store::ReplicaRow& row) {
  return row.state == "ended" && row.reason != "Stopped";
}

ReplicaView view_of(const store::ReplicaRow& row) {
  return {.id = row.id,
          .state = row.parsed_state(),
          .failed = failed(row),
          .created_at = row.created_at,
          .ready_at = row.ready_at,
          .ended_at = row.ended_at};
}

}  // namespace

Controller::~Controller() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Controller::start() {
  remove_orphans();
  thread_ = std::thread([this] { loop(); });
}

void Controller::wake() {
  {
    const std::scoped_lock lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Controller::loop() {
  while (true) {
    bool soon = true;
    try {
      soon = look();
      publish();
    } catch (const std::exception& bug) {
      log::error("serving: {}", bug.what());
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, soon ? kSoon : kLater, [this] { return woken_ || ending_; });
    if (ending_) return;
    woken_ = false;
  }
}

Controller::World Controller::load() {
  World world;
  const auto read = parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    world.deployments = store::deployments(tx);
    world.versions = store::versions(tx);
    for (const auto& version : world.versions)
      world.replicas[version.id] = store::replicas_of(tx, version.id);
    return {};
  });
  if (!read.ok()) log::error("serving: cannot read: {}", read.error().describe(Language::en));
  return world;
}

bool Controller::look() {
  World world = load();
  bool soon = false;
  for (const auto& version : world.versions)
    for (auto& replica : world.replicas[version.id])
      if (replica.live()) soon = follow(version, replica) || soon;
  for (const auto& deployment : world.deployments)
    for (const auto& version : world.versions)
      if (version.deployment_id == deployment.id)
        soon = hold_at(deployment, version, world.replicas[version.id]) || soon;
  return soon;
}

/// Brings one live replica's row up to what the engine and its port say.
bool Controller::follow(const store::VersionRow& version, store::ReplicaRow& replica) {
  const std::string run_id = run_id_of(replica.id);
  auto status = parts_.engine.inspect(run_id);
  if (!status.ok()) {
    if (status.error().code != Code::not_found) return true;  // the engine does not answer: nothing is known
    if (replica.state == "stopping") {
      replica.state = "ended";
      replica.reason = "Stopped";
      replica.ended_at = parts_.clock.now();
      save(replica);
      return false;
    }
    // Written down, and then the server was killed before the engine was told.
    warn_of(replica.id, parts_.engine.start(replica.plan));
    return true;
  }
  if (status->state == engines::RankState::ended) {
    note_end(replica, status->verdict(), engines::rank_log_path(replica.plan, 0));
    warn_of(replica.id, parts_.engine.remove(run_id));
    return false;
  }
  if (replica.state == "stopping") {
    warn_of(replica.id, parts_.engine.stop(run_id));
    return true;
  }
  if (status->state != engines::RankState::running) return true;
  const bool ready = answers(version.spec, static_cast<int>(replica.port));
  const std::string state = ready ? "ready" : replica.state == "ready" ? "unready" : replica.state;
  if (state != replica.state || !replica.started_at) {
    replica.state = state;
    replica.started_at = status->started_at;
    replica.reason = state == "unready" ? "NotAnswering" : "";
    if (ready && !replica.ready_at) replica.ready_at = parts_.clock.now();
    save(replica);
  }
  return !ready;
}

void Controller::note_end(store::ReplicaRow& replica, const engines::RankEnd& end,
                          const std::string& log_path) {
  const bool asked = replica.state == "stopping";
  replica.state = "ended";
  replica.reason = asked ? "Stopped" : reason_of(end);
  replica.detail_zh = end.message.zh;
  replica.detail_en = end.message.en;
  if (!asked) replica.log = tail_of(log_path);
  replica.ended_at = end.at;
  save(replica);
  if (!asked) log::warning("replica {} ended: {}", replica.id, replica.reason);
}

void Controller::save(const store::ReplicaRow& replica) {
  const auto saved = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    // The user may have stopped it in the meantime: that stands.
    const auto now = store::replica(tx, replica.id);
    if (!now) return {};
    store::ReplicaRow row = replica;
    if (now->state == "stopping" && row.state != "ended") row.state = "stopping";
    store::update(tx, row);
    if (row.state == "ended")
      for (const auto& id : store::forget_ended(tx, row.version_id, kKeepEnded)) {
        std::error_code ignored;
        std::filesystem::remove_all(options_.folder + "/" + id, ignored);
      }
    return {};
  });
  if (!saved.ok()) log::error("replica {}: {}", replica.id, saved.error().describe(Language::en));
}

bool Controller::hold_at(const store::DeploymentRow& deployment, const store::VersionRow& version,
                         const std::vector<store::ReplicaRow>& replicas) {
  std::vector<ReplicaView> views;
  for (const auto& replica : replicas) views.push_back(view_of(replica));
  const bool wanted = deployment.started && version.rate > 0;
  // A service that may sleep is kept awake with one replica.
  const int count = wanted ? static_cast<int>(std::max<std::int64_t>(1, version.min_replicas)) : 0;
  const auto decision = keep(count, views, parts_.clock.now());
  for (const auto& id : decision.stop) stop(id);
  if (decision.not_before) {
    say_waiting(version, "BackOff",
                {fmt::format("实例连续失败 {} 次，稍后重试", decision.failures),
                 fmt::format("replicas failed {} times in a row; the next starts a little later",
                             decision.failures)});
    return true;
  }
  bool complete = true;
  for (int i = 0; i < decision.launch && complete; ++i) complete = launch(deployment, version);
  if (decision.launch == 0 && !version.waiting.empty()) say_waiting(version, "", {});
  return decision.launch > 0 || !decision.stop.empty();
}

void Controller::stop(const std::string& replica_id) {
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    auto row = store::replica(tx, replica_id);
    if (!row || !row->live()) return {};
    row->state = "stopping";
    store::update(tx, *row);
    return {};
  });
  if (!written.ok()) return;
  publish();  // no new request goes to it from here on
  warn_of(replica_id, parts_.engine.stop(run_id_of(replica_id)));
}

/// One replica more: written down first, then the engine is told. False if it has to wait; the version then
/// says why.
bool Controller::launch(const store::DeploymentRow& deployment, const store::VersionRow& version) {
  const VersionSpec& spec = version.spec;
  const quotas::Compute need = compute_of(spec);
  Text words;
  std::string reason;
  store::ReplicaRow row;
  auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    const auto current = store::deployment(tx, deployment.id);
    if (!current || !current->started) return Error{Code::failed_precondition, {"已停止", "stopped"}};
    const auto quota = parts_.quotas.quota_of(tx, deployment.user_id);
    const auto verdict =
        quotas::check(quota, parts_.quotas.usage_of(tx, deployment.user_id), need, parts_.clock.now());
    if (verdict.admission != quotas::Admission::fits) {
      reason = verdict.admission == quotas::Admission::quota_expired ? "QuotaExpired" : "WaitingForQuota";
      return Error{Code::resource_exhausted, verdict.detail};
    }
    const auto machine = parts_.quotas.machine();
    const auto room = quotas::check({.cpu = machine.cpu, .memory_gb = machine.memory_gb},
                                    parts_.quotas.total_usage(tx), need, parts_.clock.now());
    auto grants = parts_.gpus(tx).place({gpu_need(spec)});
    if (room.admission != quotas::Admission::fits || !grants) {
      reason = "WaitingForCapacity";
      return Error{Code::resource_exhausted, room.admission != quotas::Admission::fits
                                                 ? room.detail
                                                 : Text{"没有空闲的 GPU", "no GPU is free"}};
    }
    row.id = parts_.ids.next();
    row.port = TRY(pick_port(tx, spec));
    row.plan = TRY(make_plan(tx, parts_, *current, spec,
                             {.replica_id = row.id,
                              .port = static_cast<int>(row.port),
                              .grants = grants->at(0),
                              .log_dir = options_.folder + "/" + row.id}));
    row.grants = std::move(grants->at(0));
    row.version_id = version.id;
    row.deployment_id = deployment.id;
    row.user_id = deployment.user_id;
    row.state = "starting";
    row.cpu = spec.cpu;
    row.memory_gb = spec.memory_gb;
    row.gpu = need.gpu;
    row.vgpu = need.vgpu;
    row.mig = need.mig;
    row.created_at = parts_.clock.now();
    store::insert(tx, row);
    return {};
  });
  if (!written.ok()) {
    if (written.error().code == Code::failed_precondition && reason.empty()) return false;
    say_waiting(version, reason.empty() ? "WaitingToStart" : reason, written.error().message);
    return false;
  }
  const auto started = parts_.engine.start(row.plan);
  if (!started.ok()) {
    row.state = "ended";
    row.reason = "EngineError";
    row.detail_zh = started.error().describe(Language::zh);
    row.detail_en = started.error().describe(Language::en);
    row.ended_at = parts_.clock.now();
    save(row);
    return false;
  }
  if (!version.waiting.empty()) say_waiting(version, "", {});
  return true;
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
}

Result<int> Controller::pick_port(db::Transaction& tx, const VersionSpec& spec) {
  std::set<int> taken;
  for (const auto& replica : store::live_replicas(tx)) taken.insert(static_cast<int>(replica.port));
  if (spec.port != 0) {
    const int port = static_cast<int>(spec.port);
    if (!taken.contains(port) && port_is_free(options_.host, port)) return port;
    return Error{Code::unavailable,
                 {fmt::format("端口 {} 已被占用", port), fmt::format("port {} is in use", port)}};
  }
  const int count = options_.last_port - options_.first_port + 1;
  for (int i = 0; i < count; ++i) {
    const int port = options_.first_port + next_port_++ % count;
    if (!taken.contains(port) && port_is_free(options_.host, port)) return port;
  }
  return Error{Code::unavailable, {"没有空闲的端口", "no port is free"}};
}

bool Controller::answers(const VersionSpec& spec, int port) const {
  if (!accepts_connections(options_.host, port)) return false;
  if (spec.ready_path.empty()) return true;
  http::Client client({.host = options_.host, .port = static_cast<std::uint16_t>(port)},
                      {.connect_timeout = kProbeTimeout, .timeout = kProbeTimeout});
  const auto answer =
      client.send({.method = http::Method::get, .target = spec.ready_path, .headers = {}, .body = {}});
  return answer.ok() && answer->status >= 200 && answer->status < 300;
}

void Controller::remove_orphans() {
  const auto runs = parts_.engine.list();
  if (!runs.ok()) return;
  for (const auto& run_id : *runs) {
    const std::string replica_id = replica_of_run(run_id);
    if (replica_id.empty()) continue;
    const auto known = parts_.db.read(
        [&](db::Transaction& tx) -> Result<bool> { return store::replica(tx, replica_id).has_value(); });
    if (!known.ok() || *known) continue;
    log::warning("removing the orphan run {}", run_id);
    warn_of(replica_id, parts_.engine.stop(run_id, Duration{0}));
    warn_of(replica_id, parts_.engine.remove(run_id));
  }
}

void Controller::publish() {
  const std::scoped_lock lock(publish_mutex_);  // an older picture must not replace a newer one
  const World world = load();
  std::vector<gateway::ServiceRoute> routes;
  for (const auto& deployment : world.deployments) {
    gateway::ServiceRoute route{
        .id = deployment.id,
        .name = deployment.name,
        .owner = deployment.user_id,
        .versions = {},
        .unavailable = deployment.started ? Text{"服务没有就绪的实例", "no replica of the service is ready"}
                                          : Text{"服务已停止", "the service is stopped"}};
    for (const auto& version : world.versions) {
      if (version.deployment_id != deployment.id) continue;
      gateway::VersionRoute& to = route.versions.emplace_back();
      to.id = version.id;
      to.rate = static_cast<int>(version.rate);
      to.path = deployment.path;
      to.grpc = version.spec.request_method == "grpc";
      for (const auto& replica : world.replicas.at(version.id))
        if (replica.state == "ready")
          to.upstreams.push_back({replica.id, options_.host, static_cast<std::uint16_t>(replica.port)});
    }
    routes.push_back(std::move(route));
  }
  parts_.gateway.set_routes(std::move(routes));
}

}  // namespace lathe::serving
