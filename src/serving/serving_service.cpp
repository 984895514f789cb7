#include "serving/serving_service.h"

#include <filesystem>

#include "base/log.h"

namespace lathe::serving {

namespace {

double mean(const gateway::Times& times) {
  const auto total = times.total();
  return total > 0 ? times.seconds / static_cast<double>(total) : 0;
}

void count(wire::Counted& to, const gateway::Counters& from) {
  to.requests = static_cast<std::int64_t>(from.requests);
  to.failures = static_cast<std::int64_t>(from.failures);
  to.inFlight = static_cast<std::int64_t>(from.in_flight);
  to.bytesIn = static_cast<std::int64_t>(from.bytes_in);
  to.bytesOut = static_cast<std::int64_t>(from.bytes_out);
  to.promptTokens = static_cast<std::int64_t>(from.prompt_tokens);
  to.completionTokens = static_cast<std::int64_t>(from.completion_tokens);
  to.meanFirstByteSeconds = mean(from.first_byte);
  to.meanDurationSeconds = mean(from.duration);
}

}  // namespace

Result<std::unique_ptr<Serving>> Serving::open(const Parts& parts, Options options) {
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) return system_error("mkdir " + options.folder, error.value());
  return std::unique_ptr<Serving>(std::make_unique<Service>(parts, std::move(options)));
}

Service::Service(const Parts& parts, Options options) : parts_(parts), options_(std::move(options)) {
  parts_.models.guard_deletion([](db::Transaction& tx, std::string_view version_id) -> Result<void> {
    const auto users = store::deployments_using_model(tx, version_id);
    if (users.empty()) return {};
    return Error{
        Code::failed_precondition,
        {"模型版本正被推理服务使用：" + users[0], "the model version is used by the service " + users[0]}};
  });
  parts_.images.guard_deletion(
      [](db::Transaction& tx, std::string_view image_id, std::string_view tag) -> Result<void> {
        const auto user = store::deployment_using_image(tx, image_id, tag);
        if (!user) return {};
        return Error{Code::failed_precondition,
                     {"镜像正被推理服务使用：" + *user, "the image is used by the service " + *user}};
      });
  // A version goes on with the image it was made with, wherever the tag leads now.
  parts_.images.add_uses([](db::Transaction& tx) { return store::image_digests(tx); });
  parts_.accounts.guard_deletion([](db::Transaction& tx, std::string_view user_id) -> Result<void> {
    if (store::count_deployments(tx, user_id, "") == 0) return {};
    return Error{Code::failed_precondition, {"用户还有推理服务", "the user still has services"}};
  });
  parts_.quotas.guard_deletion([](db::Transaction& tx, std::string_view group_id) -> Result<void> {
    for (const auto& version : store::versions(tx))
      if (version.spec.group_id == group_id)
        return Error{Code::failed_precondition,
                     {"资源组正被推理服务使用", "a service uses the resource group"}};
    return {};
  });
}

void Service::start() {
  controller_.start();
}

void Service::run_changed(const std::string& run_id) {
  if (!replica_of_run(run_id).empty()) controller_.wake(replica_of_run(run_id));
}

quotas::Compute Service::usage_of(db::Transaction& tx, std::string_view user_id) {
  return store::held(tx, user_id);
}
quotas::Compute Service::total_usage(db::Transaction& tx) {
  return store::held(tx, "");
}

std::vector<engines::GpuGrant> Service::held_gpus(db::Transaction& tx) {
  std::vector<engines::GpuGrant> out;
  for (auto& row : store::live_replicas(tx)) out.insert(out.end(), row.grants.begin(), row.grants.end());
  return out;
}

std::vector<jobs::HoldingSource::Held> Service::holdings() {
  std::vector<Held> out;
  const auto read = parts_.db.read([&](db::Transaction& tx) -> Result<void> {
    for (auto& row : store::live_replicas(tx)) {
      const auto version = store::version(tx, row.version_id);
      Held held;
      held.holding = {.user_id = row.user_id,
                      .group_id = version ? version->spec.group_id : std::string(quotas::kDefaultGroup),
                      .held = {.cpu = row.cpu,
                               .memory_gb = row.memory_gb,
                               .gpu = row.gpu,
                               .vgpu = row.vgpu,
                               .mig = row.mig},
                      .since = row.created_at,
                      .ends_by = {},
                      .permanent = true};
      held.engine = parts_.engine.name();
      held.gpus = std::move(row.grants);
      out.push_back(std::move(held));
    }
    return {};
  });
  if (!read.ok()) log::error("serving: {}", read.error().describe(Language::en));
  return out;
}

Result<store::DeploymentRow> Service::find(db::Transaction& tx, const http::Call& call,
                                           const std::string& id) {
  auto row = store::deployment(tx, id);
  if (!row || (row->user_id != call.caller.user_id && !call.caller.admin))
    return about("id", not_found({"推理服务", "service"}, id));
  return std::move(*row);
}

Result<http::Page<wire::ServerAnswer>> Service::list(const http::Call& call,
                                                     const wire::ListRequest& request) {
  const auto user = TRY(
      parts_.accounts.listing_for(call.caller, request.queryCriteria.createUser, "queryCriteria.createUser"));
  auto page = TRY(parts_.db.read([&](db::Transaction& tx) -> Result<http::Page<wire::ServerAnswer>> {
    const std::string owner = user.value_or("");
    std::vector<wire::ServerAnswer> rows;
    for (const auto& row :
         store::deployment_page(tx, owner, request.queryCriteria.name, request.offset(), request.size()))
      rows.push_back(answer(tx, row, call.request.language));
    return request.page(store::count_deployments(tx, owner, request.queryCriteria.name), std::move(rows));
  }));
  for (auto& row : page.rows) row = named(std::move(row));
  return page;
}

Result<wire::ServerAnswer> Service::show(const http::Call& call, const std::string& id) {
  return named(TRY(parts_.db.read([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    const auto row = TRY(find(tx, call, id));
    return answer(tx, row, call.request.language);
  })));
}

Result<wire::VersionAnswer> Service::show_version(const http::Call& call, const std::string& id) {
  return named(TRY(parts_.db.read([&](db::Transaction& tx) -> Result<wire::VersionAnswer> {
    const auto version = store::version(tx, id);
    if (!version) return about("id", not_found({"服务版本", "service version"}, id));
    const auto deployment = find(tx, call, version->deployment_id);
    if (!deployment.ok()) return about("id", not_found({"服务版本", "service version"}, id));
    return answer(tx, *deployment, *version, call.request.language);
  })));
}

Result<wire::MetricsAnswer> Service::metrics(const http::Call& call, const std::string& id) {
  const auto shown = TRY(show(call, id));
  wire::MetricsAnswer out;
  const auto load = parts_.gateway.load();
  for (const auto& service : load.services) {
    if (service.service_id != id) continue;
    out.queued = static_cast<std::int64_t>(service.queued);
    out.queuedTotal = static_cast<std::int64_t>(service.queued_total);
    out.refusedTotal = static_cast<std::int64_t>(service.refused_total);
  }
  for (const auto& version : shown.modelServerVersions) {
    wire::VersionMetrics& to = out.versions.emplace_back();
    to.versionId = version.id;
    to.metric = version.spec.metric;
    to.desiredReplicas = version.desiredReplicas;
    to.readyReplicas = version.readyReplicas;
    if (const auto figures = controller_.scaler().figures(version.id)) {
      to.target = figures->target;
      to.stable = figures->stable;
      to.panic = figures->panic;
      to.panicking = figures->panicking;
    }
    for (const auto& counters : load.versions)
      if (counters.version_id == version.id) count(to, counters);
  }
  for (const auto& counters : load.upstreams) {
    if (counters.service_id != id) continue;
    wire::ReplicaMetrics& to = out.items.emplace_back();
    to.versionId = counters.version_id;
    to.replicaId = counters.upstream_id;
    to.draining = counters.draining;
    count(to, counters);
  }
  return out;
}

Result<http::Slice<wire::EventAnswer>> Service::events(const http::Call& call,
                                                       const wire::EventQuery& query) {
  auto rows = TRY(parts_.db.read([&](db::Transaction& tx) -> Result<std::vector<store::EventRow>> {
    TRY(find(tx, call, query.id));
    return store::events_of(tx, query.id, query.slice.cursor, query.slice.limit());
  }));
  std::vector<wire::EventAnswer> out;
  for (auto& row : rows)
    out.push_back({.id = row.id,
                   .at = row.at,
                   .kind = row.kind,
                   .reason = row.reason,
                   .message = call.request.language == Language::zh ? row.zh : row.en,
                   .versionId = row.version_id,
                   .replicaId = row.replica_id,
                   .replicasBefore = row.replicas_before,
                   .replicasAfter = row.replicas_after});
  return http::slice(query.slice, std::move(out), [](const wire::EventAnswer& event) { return event.id; });
}

Result<std::string> Service::log_path(const http::Call& call, const std::string& id,
                                      const std::string& replica) {
  return parts_.db.read([&](db::Transaction& tx) -> Result<std::string> {
    TRY(find(tx, call, id));
    std::optional<store::ReplicaRow> newest;
    for (const auto& version : store::versions_of(tx, id))
      for (auto& row : store::replicas_of(tx, version.id))
        if (replica.empty() ? !newest || row.id > newest->id : row.id == replica) newest = std::move(row);
    if (!newest) return about("replica", not_found({"实例", "replica"}, replica));
    return engines::rank_log_path(newest->plan, 0);
  });
}

}  // namespace lathe::serving
