#include "serving/replicas.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/log.h"

namespace lathe::serving {

namespace {

constexpr std::int64_t kKeepEnded = 5;
constexpr std::size_t kLogTail = 4096;

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

}  // namespace

Replicas::Replicas(const Parts& parts, const Options& options,
                   std::function<void(const std::string&)> changed)
    : parts_(parts),
      options_(options),
      ports_(options.host, options.first_port, options.last_port),
      prober_(std::move(changed)) {}

void Replicas::adopt() {
  const auto live = parts_.db.read([&](db::Transaction& tx) -> Result<std::vector<store::ReplicaHead>> {
    auto all = store::replica_heads(tx);
    std::erase_if(all, [](const auto& replica) { return !replica.live(); });
    return all;
  });
  if (!live.ok()) return;
  for (const auto& replica : *live) ports_.adopt(replica.id, static_cast<int>(replica.port));

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

void Replicas::watch(const std::vector<const store::VersionRow*>& versions,
                     const std::vector<const store::ReplicaHead*>& replicas) {
  std::map<std::string_view, const store::VersionRow*> by_id;
  for (const auto* version : versions) by_id[version->id] = version;
  std::vector<Prober::Target> targets;
  for (const auto* replica : replicas) {
    const auto it = by_id.find(replica->version_id);
    if (!replica->live() || replica->state == "stopping" || it == by_id.end()) continue;
    targets.push_back(
        {replica->id, options_.host, static_cast<int>(replica->port), it->second->spec.ready_path});
  }
  std::erase_if(progress_, [&](const auto& one) {
    return std::none_of(targets.begin(), targets.end(),
                        [&](const auto& target) { return target.id == one.first; });
  });
  prober_.watch(std::move(targets));
}

Work Replicas::work_of(const std::string& replica_id) {
  const auto now = std::chrono::steady_clock::now();
  const auto activity = parts_.gateway.activity(replica_id);
  const auto [it, first_look] = progress_.try_emplace(replica_id);
  Progress& progress = it->second;
  if (first_look || activity.in_flight == 0 || activity.sent != progress.sent)
    progress = {.sent = activity.sent, .since = now};
  return {.under_way = activity.in_flight,
          .stalled = std::chrono::duration_cast<Duration>(now - progress.since)};
}

bool Replicas::follow(store::ReplicaHead& replica, Duration drain_limit) {
  const std::string run_id = run_id_of(replica.id);
  auto status = parts_.engine.inspect(run_id);
  if (!status.ok()) {
    if (status.error().code != Code::not_found) return false;  // the engine does not answer: nothing is known
    if (!replica.leaving()) {
      restart_lost(replica);
      return false;
    }
    replica.state = "ended";
    replica.reason = replica.stop_reason.empty() ? "Stopped" : replica.stop_reason;
    replica.ended_at = parts_.clock.now();
    return save(replica);
  }
  if (status->state == engines::RankState::ended) {
    note_end(replica, status->verdict());
    warn_of(replica.id, parts_.engine.remove(run_id));
    return true;
  }
  if (replica.state == "draining") {
    const bool over = parts_.clock.now() - replica.stopping_at.value_or(Time{}) >= drain_limit;
    if (!over && parts_.gateway.activity(replica.id).in_flight > 0) return false;
    replica.state = "stopping";
    if (!save(replica)) return false;
  }
  if (replica.state == "stopping") {
    warn_of(replica.id, parts_.engine.stop(run_id));
    return false;
  }
  if (status->state != engines::RankState::running) return false;
  return follow_running(replica, *status);
}

bool Replicas::follow_running(store::ReplicaHead& replica, const engines::RunStatus& status) {
  const Time now = parts_.clock.now();
  const auto verdict = judge(options_.health, replica.parsed_state(), prober_.health(replica.id),
                             work_of(replica.id), now - replica.created_at);
  if (verdict.finding == Finding::replace) {
    log::warning("replica {} is replaced: {}, {}", replica.id, verdict.reason, verdict.detail.en);
    return drain(replica.id, verdict.reason, verdict.detail);
  }
  std::string state = replica.state;
  if (verdict.finding == Finding::ready) state = "ready";
  if (verdict.finding == Finding::unready) state = "unready";
  if (state == replica.state && replica.started_at) return false;
  const bool other = state != replica.state;
  replica.state = state;
  replica.started_at = status.started_at;
  replica.reason = state == "unready" ? verdict.reason : "";
  replica.detail_zh = state == "unready" ? verdict.detail.zh : "";
  replica.detail_en = state == "unready" ? verdict.detail.en : "";
  if (state == "ready" && !replica.ready_at) replica.ready_at = now;
  return save(replica) && other;
}

/// Written down, and then the server was killed before the engine was told.
void Replicas::restart_lost(const store::ReplicaHead& replica) {
  const auto row = parts_.db.read([&](db::Transaction& tx) -> Result<std::optional<store::ReplicaRow>> {
    return store::replica(tx, replica.id);
  });
  if (row.ok() && *row) warn_of(replica.id, parts_.engine.start((*row)->plan));
}

void Replicas::note_end(store::ReplicaHead& replica, const engines::RankEnd& end) {
  const bool asked = replica.leaving();
  const bool failed = !asked || !replica.stop_reason.empty();
  replica.state = "ended";
  replica.ended_at = end.at;
  if (!asked) {
    replica.reason = reason_of(end);
    replica.detail_zh = end.message.zh;
    replica.detail_en = end.message.en;
  } else {
    replica.reason = failed ? replica.stop_reason : "Stopped";
  }
  const std::string log =
      engines::rank_log_path({.run_id = {}, .log_dir = options_.folder + "/" + replica.id}, 0);
  save(replica, failed ? tail_of(log) : "");
  ports_.release(replica.id);
  if (!failed) return;
  log::warning("replica {} ended: {}", replica.id, replica.reason);
  const auto told = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    if (!store::deployment(tx, replica.deployment_id)) return {};
    store::insert_event(tx, {.deployment_id = replica.deployment_id,
                             .id = parts_.ids.next(),
                             .at = parts_.clock.now(),
                             .version_id = replica.version_id,
                             .replica_id = replica.id,
                             .kind = "replica",
                             .reason = replica.reason,
                             .replicas_before = {},
                             .replicas_after = {},
                             .zh = replica.detail_zh,
                             .en = replica.detail_en});
    return {};
  });
  warn_of(replica.id, told);
}

/// False if it could not be written, or is no longer there.
bool Replicas::save(const store::ReplicaHead& replica, const std::string& log) {
  bool there = false;
  const auto saved = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    there = store::replica(tx, replica.id).has_value();
    if (!there) return {};
    store::update(tx, replica);
    if (!log.empty()) store::keep_log(tx, replica.id, log);
    if (replica.state == "ended")
      for (const auto& id : store::forget_ended(tx, replica.version_id, kKeepEnded)) {
        std::error_code ignored;
        std::filesystem::remove_all(options_.folder + "/" + id, ignored);
      }
    return {};
  });
  warn_of(replica.id, saved);
  return saved.ok() && there;
}

bool Replicas::drain(const std::string& replica_id, const std::string& reason, const Text& detail) {
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<bool> {
    std::optional<store::ReplicaHead> row = store::replica(tx, replica_id);
    if (!row || !row->live() || row->leaving()) return false;
    row->state = "draining";
    row->stopping_at = parts_.clock.now();
    row->stop_reason = reason;
    row->detail_zh = detail.zh;
    row->detail_en = detail.en;
    store::update(tx, *row);
    return true;
  });
  return written.ok() && *written;
}

bool Replicas::revive(const std::string& replica_id) {
  const bool answers = prober_.health(replica_id).last == Health::Answer::good;
  const auto written = parts_.db.write([&](db::Transaction& tx) -> Result<bool> {
    std::optional<store::ReplicaHead> row = store::replica(tx, replica_id);
    if (!row || row->state != "draining" || !row->stop_reason.empty()) return false;
    row->state = answers ? "ready" : row->ready_at ? "unready" : "starting";
    row->stopping_at.reset();
    store::update(tx, *row);
    return true;
  });
  return written.ok() && *written;
}

std::vector<std::vector<std::string>> Replicas::gpus_of(const std::vector<store::ReplicaHead>& replicas) {
  std::vector<std::vector<std::string>> out;
  const auto read = parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    for (const auto& replica : replicas) {
      if (replica.state != "ready") continue;
      const auto row = store::replica(tx, replica.id);
      auto& devices = out.emplace_back();
      if (!row) continue;
      for (const auto& grant : row->grants) devices.push_back(grant.uuid);
    }
    return {};
  });
  if (!read.ok()) return {};
  return out;
}

std::optional<Replicas::Refusal> Replicas::launch(const store::DeploymentRow& deployment,
                                                  const store::VersionRow& version) {
  const VersionSpec& spec = version.spec;
  const quotas::Compute need = compute_of(spec);
  store::ReplicaRow row;
  row.id = parts_.ids.next();
  const auto port =
      ports_.take(row.id, spec.port == 0 ? std::nullopt : std::optional(static_cast<int>(spec.port)));
  if (!port.ok()) return Refusal{"WaitingForPort", port.error().message};
  row.port = *port;
  Refusal refusal;
  std::unique_lock granting(parts_.granting);
  auto written = parts_.db.write([&](db::Transaction& tx) -> Result<void> {
    const auto refuse = [&](std::string_view reason, Text words) {
      refusal = {std::string(reason), words};
      return Error{Code::resource_exhausted, std::move(words)};
    };
    const auto current = store::deployment(tx, deployment.id);
    if (!current || !current->started) return refuse("", {"已停止", "stopped"});
    const auto quota = parts_.quotas.quota_of(tx, deployment.user_id);
    const auto verdict =
        quotas::check(quota, parts_.quotas.usage_of(tx, deployment.user_id), need, parts_.clock.now());
    if (verdict.admission != quotas::Admission::fits)
      return refuse(
          verdict.admission == quotas::Admission::quota_expired ? "QuotaExpired" : "WaitingForQuota",
          verdict.detail);
    const auto machine = parts_.quotas.machine();
    const auto room = quotas::check({.cpu = machine.cpu, .memory_gb = machine.memory_gb},
                                    parts_.quotas.total_usage(tx), need, parts_.clock.now());
    auto grants = parts_.gpus(tx).place({gpu_need(spec)});
    if (room.admission != quotas::Admission::fits) return refuse("WaitingForCapacity", room.detail);
    if (!grants) return refuse("WaitingForCapacity", {"没有空闲的 GPU", "no GPU is free"});
    auto plan = make_plan(tx, parts_, *current, spec,
                          {.replica_id = row.id,
                           .port = static_cast<int>(row.port),
                           .grants = grants->at(0),
                           .log_dir = options_.folder + "/" + row.id});
    if (!plan.ok()) return refuse("WaitingToStart", plan.error().message);
    row.plan = std::move(*plan);
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
  granting.unlock();
  if (!written.ok()) {
    ports_.release(row.id);
    if (refusal.words.en.empty()) refusal = {"WaitingToStart", written.error().message};
    return refusal;
  }
  const auto started = parts_.engine.start(row.plan);
  if (started.ok()) return std::nullopt;
  row.state = "ended";
  row.reason = "EngineError";
  row.detail_zh = started.error().describe(Language::zh);
  row.detail_en = started.error().describe(Language::en);
  row.ended_at = parts_.clock.now();
  save(row);
  ports_.release(row.id);
  return Refusal{"EngineError", started.error().message};
}

}  // namespace lathe::serving
