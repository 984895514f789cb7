#include "serving/serving_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/log.h"

namespace lathe::serving {

namespace {

Error no_service(std::string_view id) {
  return about("id", not_found({"推理服务", "service"}, id));
}

wire::ReplicaAnswer answer_of(const store::ReplicaRow& row, Language language) {
  return {.id = row.id,
          .state = row.state,
          .reason = row.reason,
          .detail = language == Language::zh ? row.detail_zh : row.detail_en,
          .log = row.log,
          .port = row.port,
          .createTime = row.created_at,
          .startTime = row.started_at,
          .readyTime = row.ready_at,
          .endTime = row.ended_at};
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
  if (!replica_of_run(run_id).empty()) controller_.wake();
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

Result<void> Service::check_shares(const std::vector<store::VersionRow>& versions, const std::string& field) {
  const auto sum = std::accumulate(versions.begin(), versions.end(), std::int64_t{0},
                                   [](std::int64_t total, const auto& v) { return total + v.rate; });
  if (sum == 100) return {};
  return invalid_field(field, {fmt::format("各版本流量比例之和应为 100，现为 {}", sum),
                               fmt::format("the shares of the versions must sum to 100, not {}", sum)});
}

Result<wire::Created> Service::create(http::Call& call, const wire::CreateRequest& request, bool run) {
  const auto& asked = request.modelServer;
  const auto owner = TRY(
      parts_.accounts.acting_for(call.caller, accounts::Named{.user_id = asked.createUser,
                                                              .user_name = asked.userName,
                                                              .user_id_field = "modelServer.createUser",
                                                              .user_name_field = "modelServer.userName"}));
  if (request.modelServerVersions.empty())
    return invalid_field("modelServerVersions", {"至少要有一个版本", "needs at least one version"});
  std::vector<store::VersionRow> versions;
  for (std::size_t i = 0; i < request.modelServerVersions.size(); ++i)
    versions.push_back(TRY(builder_.build(request.modelServerVersions[i], owner, call.caller,
                                          fmt::format("modelServerVersions[{}]", i))));

  const Time now = parts_.clock.now();
  const std::string extends = request.modelServerVersions[0].modelServerId;
  const std::string new_id = extends.empty() ? call.new_id() : extends;
  auto created = parts_.db.write([&](db::Transaction& tx) -> Result<wire::Created> {
    wire::Created out{.id = new_id, .name = asked.name, .modelServerVersionIds = {}};
    std::vector<store::VersionRow> all;
    if (auto before = store::deployment(tx, new_id)) {
      if (before->user_id != owner.id) return no_service(new_id);
      all = store::versions_of(tx, new_id);
      if (extends.empty()) {  // the same request again, by its Idempotency-Key
        for (const auto& version : all) out.modelServerVersionIds.push_back(version.id);
        return out;
      }
      before->started = before->started || run;
      before->updated_at = now;
      store::update(tx, *before);
    } else if (!extends.empty()) {
      return no_service(extends);
    } else {
      if (store::deployment_named(tx, asked.name))
        return Error{Code::already_exists,
                     {"服务名称已被使用", "the name is taken"},
                     {{"modelServer.name", {"已被使用：" + asked.name, "is taken: " + asked.name}}}};
      store::insert(tx, store::DeploymentRow{.id = new_id,
                                             .name = asked.name,
                                             .user_id = owner.id,
                                             .description = asked.description,
                                             .path = asked.path,
                                             .started = run,
                                             .created_at = now,
                                             .updated_at = now});
    }
    std::int64_t number = all.empty() ? 0 : all.back().number;
    for (auto& version : versions) {
      version.id = parts_.ids.next();
      version.deployment_id = new_id;
      version.number = ++number;
      version.created_at = now;
      all.push_back(version);
      out.modelServerVersionIds.push_back(version.id);
      store::insert(tx, version);
    }
    TRY(check_shares(all, "modelServerVersions[0].rate"));
    parts_.audit.record(tx, call, run ? "service.create" : "service.save", "service", new_id, asked.name);
    return out;
  });
  if (created.ok()) controller_.wake();
  return created;
}

Result<store::DeploymentRow> Service::find(db::Transaction& tx, const http::Call& call,
                                           const std::string& id) {
  auto row = store::deployment(tx, id);
  if (!row || (row->user_id != call.caller.user_id && !call.caller.admin)) return no_service(id);
  return std::move(*row);
}

wire::VersionAnswer Service::answer(db::Transaction& tx, const store::DeploymentRow& deployment,
                                    const store::VersionRow& row, Language language) {
  wire::VersionAnswer out{.id = row.id,
                          .modelServerId = deployment.id,
                          .modelServerName = deployment.name,
                          .createUser = deployment.user_id,
                          .userName = parts_.accounts.name_of(deployment.user_id),
                          .version = row.number,
                          .rate = row.rate,
                          .predictMinReplicas = row.min_replicas,
                          .predictMaxReplicas = row.max_replicas,
                          .spec = row.spec,
                          .createTime = row.created_at,
                          .replicas = {}};
  std::string last_failure;
  bool live = false;
  for (const auto& replica : store::replicas_of(tx, row.id)) {
    out.readyReplicas += replica.state == "ready";
    live = live || replica.live();
    if (replica.state == "ended" && replica.reason != "Stopped") last_failure = replica.reason;
    out.replicas.push_back(answer_of(replica, language));
  }
  if (!deployment.started || row.rate == 0) {
    out.status = live ? "Stopping" : "Stopped";
  } else if (out.readyReplicas > 0) {
    out.status = "Running";
  } else if (!row.waiting.empty()) {
    out.status = row.waiting == "BackOff" ? "Failed" : "Pending";
  } else {
    out.status = "Starting";
  }
  out.statusReason = row.waiting;
  if (row.waiting == "BackOff" && !last_failure.empty()) out.statusReason += ": " + last_failure;
  const std::string& words = language == Language::zh ? row.waiting_zh : row.waiting_en;
  if (!words.empty()) out.statusReason += (out.statusReason.empty() ? "" : " — ") + words;
  return out;
}

wire::ServerAnswer Service::answer(db::Transaction& tx, const store::DeploymentRow& row, Language language) {
  wire::ServerAnswer out{.id = row.id,
                         .name = row.name,
                         .description = row.description,
                         .createUser = row.user_id,
                         .userName = parts_.accounts.name_of(row.user_id),
                         .path = row.path,
                         .url = "/serve/" + row.name + "/",
                         .createTime = row.created_at,
                         .updateTime = row.updated_at,
                         .modelServerVersions = {}};
  for (const auto& version : store::versions_of(tx, row.id))
    out.modelServerVersions.push_back(answer(tx, row, version, language));
  // The service is as well as its best version.
  for (const char* status : {"Running", "Starting", "Pending", "Failed", "Stopping", "Stopped"})
    for (const auto& version : out.modelServerVersions)
      if (out.status.empty() && version.status == status) {
        out.status = version.status;
        out.statusReason = version.statusReason;
      }
  return out;
}

Result<http::Page<wire::ServerAnswer>> Service::list(const http::Call& call,
                                                     const wire::ListRequest& request) {
  const auto user = TRY(
      parts_.accounts.listing_for(call.caller, request.queryCriteria.createUser, "queryCriteria.createUser"));
  return parts_.db.read([&](db::Transaction& tx) -> Result<http::Page<wire::ServerAnswer>> {
    const std::string owner = user.value_or("");
    std::vector<wire::ServerAnswer> rows;
    for (const auto& row :
         store::deployment_page(tx, owner, request.queryCriteria.name, request.offset(), request.size()))
      rows.push_back(answer(tx, row, call.request.language));
    return request.page(store::count_deployments(tx, owner, request.queryCriteria.name), std::move(rows));
  });
}

Result<wire::ServerAnswer> Service::show(const http::Call& call, const std::string& id) {
  return parts_.db.read([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    const auto row = TRY(find(tx, call, id));
    return answer(tx, row, call.request.language);
  });
}

Result<wire::VersionAnswer> Service::show_version(const http::Call& call, const std::string& id) {
  return parts_.db.read([&](db::Transaction& tx) -> Result<wire::VersionAnswer> {
    const auto version = store::version(tx, id);
    if (!version) return about("id", not_found({"服务版本", "service version"}, id));
    const auto deployment = find(tx, call, version->deployment_id);
    if (!deployment.ok()) return about("id", not_found({"服务版本", "service version"}, id));
    return answer(tx, *deployment, *version, call.request.language);
  });
}

Result<wire::ServerAnswer> Service::set_started(const http::Call& call, const std::string& id, bool started) {
  auto out = parts_.db.write([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    auto row = TRY(find(tx, call, id));
    row.started = started;
    row.updated_at = parts_.clock.now();
    store::update(tx, row);
    parts_.audit.record(tx, call, started ? "service.start" : "service.stop", "service", id, row.name);
    return answer(tx, row, call.request.language);
  });
  if (out.ok()) controller_.wake();
  return out;
}

Result<wire::ServerAnswer> Service::change(const http::Call& call, const wire::ChangeRequest& request) {
  auto out = parts_.db.write([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    auto row = TRY(find(tx, call, request.id));
    auto versions = store::versions_of(tx, row.id);
    for (std::size_t i = 0; i < request.versions.size(); ++i) {
      const auto& wanted = request.versions[i];
      const std::string field = fmt::format("versions[{}]", i);
      const auto it =
          std::find_if(versions.begin(), versions.end(), [&](const auto& v) { return v.id == wanted.id; });
      if (it == versions.end())
        return invalid_field(field + ".id", {"不是此服务的版本", "is not a version of this service"});
      it->rate = wanted.rate.value_or(it->rate);
      it->min_replicas = wanted.minReplicas.value_or(it->min_replicas);
      it->max_replicas = wanted.maxReplicas.value_or(std::max(it->max_replicas, it->min_replicas));
      if (it->max_replicas < it->min_replicas)
        return invalid_field(field + ".maxReplicas",
                             {"不能小于 minReplicas", "must not be less than minReplicas"});
      if (it->spec.port != 0 && it->max_replicas > 1)
        return invalid_field(
            field + ".maxReplicas",
            {"端口固定的版本只能有一个实例", "a version with a fixed port can have one replica only"});
      store::update(tx, *it);
    }
    TRY(check_shares(versions, "versions[0].rate"));
    if (request.description) row.description = *request.description;
    row.updated_at = parts_.clock.now();
    store::update(tx, row);
    parts_.audit.record(tx, call, "service.change", "service", row.id, row.name);
    return answer(tx, row, call.request.language);
  });
  if (out.ok()) {
    controller_.publish();
    controller_.wake();
  }
  return out;
}

Result<Nothing> Service::remove(const http::Call& call, const std::string& id) {
  TRY(set_started(call, id, false));
  TRY(await_end(id));
  return parts_.db.write([&](db::Transaction& tx) -> Result<Nothing> {
    const auto row = TRY(find(tx, call, id));
    for (const auto& version : store::versions_of(tx, id))
      for (const auto& replica : store::replicas_of(tx, version.id)) {
        if (replica.live())
          return Error{Code::failed_precondition, {"服务又被启动了", "the service has been started again"}};
        std::error_code ignored;
        std::filesystem::remove_all(options_.folder + "/" + replica.id, ignored);
      }
    store::remove_deployment(tx, id);
    parts_.audit.record(tx, call, "service.delete", "service", id, row.name);
    return Nothing{};
  });
}

/// A replica ends within its grace; the wait is for the last of them.
Result<void> Service::await_end(const std::string& deployment_id) {
  for (int i = 0; i < 300; ++i) {
    const bool live = TRY(parts_.db.read([&](db::Transaction& tx) -> Result<bool> {
      for (const auto& version : store::versions_of(tx, deployment_id))
        for (const auto& replica : store::replicas_of(tx, version.id))
          if (replica.live()) return true;
      return false;
    }));
    if (!live) return {};
    controller_.wake();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return Error{
      Code::unavailable,
      {"实例仍在停止，请稍后再删除", "the replicas are still stopping: delete again a little later"}};
}

Result<wire::MetricsAnswer> Service::metrics(const http::Call& call, const std::string& id) {
  TRY(show(call, id));
  wire::MetricsAnswer out;
  for (const auto& c : parts_.gateway.load().upstreams) {
    if (c.service_id != id) continue;
    out.items.push_back(
        {.versionId = c.version_id,
         .replicaId = c.upstream_id,
         .requests = static_cast<std::int64_t>(c.requests),
         .failures = static_cast<std::int64_t>(c.failures),
         .inFlight = static_cast<std::int64_t>(c.in_flight),
         .bytesIn = static_cast<std::int64_t>(c.bytes_in),
         .bytesOut = static_cast<std::int64_t>(c.bytes_out),
         .meanFirstByteSeconds =
             c.first_byte.total() ? c.first_byte.seconds / static_cast<double>(c.first_byte.total()) : 0});
  }
  return out;
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
