#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "serving/serving_service.h"
#include "serving/shares.h"

namespace lathe::serving {

namespace {

Error no_service(std::string_view id) {
  return about("id", not_found({"推理服务", "service"}, id));
}

/// "1: 90 %, 0–4; 2: 10 %, 1–1": the versions' shares and bounds.
Text shares_text(const std::vector<store::VersionRow>& versions) {
  std::string out;
  for (const auto& version : versions)
    out += fmt::format("{}{}: {} %, {}–{}", out.empty() ? "" : "; ", version.number, version.rate,
                       version.min_replicas, version.max_replicas);
  return {"各版本流量与实例数 " + out, "shares and replicas of the versions " + out};
}

}  // namespace

Result<std::vector<store::VersionRow>> Service::build_versions(const http::Call& call,
                                                               const wire::CreateRequest& request,
                                                               const accounts::User& owner) {
  std::vector<store::VersionRow> out;
  const std::string& extends = request.modelServerVersions[0].modelServerId;
  for (std::size_t i = 0; i < request.modelServerVersions.size(); ++i) {
    const std::string field = fmt::format("modelServerVersions[{}]", i);
    const auto& version = request.modelServerVersions[i];
    if (version.modelServerId != extends)
      return invalid_field(field + ".modelServerId", {"各版本应属于同一个服务", "must be the same for all"});
    out.push_back(TRY(builder_.build(version, owner, call.caller, field)));
    // A version that joins others gets no traffic unless it is said how much.
    if (!version.rate) out.back().rate = extends.empty() ? 100 : 0;
  }
  return out;
}

Result<void> Service::check_access(const http::Call& call) const {
  if (!options_.administrators_only || call.caller.admin) return {};
  return Error{Code::permission_denied,
               {"此服务器上只有管理员可以创建、修改和启动推理服务",
                "on this server only administrators may create, change and start services"}};
}

Result<wire::Created> Service::create(http::Call& call, const wire::CreateRequest& request, bool run) {
  TRY(check_access(call));
  const auto& asked = request.modelServer;
  const auto owner = TRY(
      parts_.accounts.acting_for(call.caller, accounts::Named{.user_id = asked.createUser,
                                                              .user_name = asked.userName,
                                                              .user_id_field = "modelServer.createUser",
                                                              .user_name_field = "modelServer.userName"}));
  if (request.modelServerVersions.empty())
    return invalid_field("modelServerVersions", {"至少要有一个版本", "needs at least one version"});
  auto versions = TRY(build_versions(call, request, owner));
  std::vector<GivenShare> shares;
  for (std::size_t i = 0; i < request.modelServerVersions.size(); ++i)
    for (auto& share : TRY(read_shares(request.modelServerVersions[i].rates,
                                       fmt::format("modelServerVersions[{}].rates", i))))
      shares.push_back(std::move(share));

  const Time now = parts_.clock.now();
  const std::string extends = request.modelServerVersions[0].modelServerId;
  const std::string new_id = extends.empty() ? call.new_id() : extends;
  auto created = parts_.db.write([&](db::Transaction& tx) -> Result<wire::Created> {
    wire::Created out{.id = new_id, .name = asked.name, .modelServerVersionIds = {}};
    std::vector<store::VersionRow> all;
    bool was_started = false;
    if (auto before = store::deployment(tx, new_id)) {
      if (before->user_id != owner.id) return no_service(new_id);
      all = store::versions_of(tx, new_id);
      if (extends.empty()) {  // the same request again, by its Idempotency-Key
        for (const auto& version : all) out.modelServerVersionIds.push_back(version.id);
        return out;
      }
      was_started = before->started;
      before->started = before->started || run;
      before->updated_at = now;
      out.name = before->name;
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
    std::vector<std::int64_t> before;
    for (const auto& version : all) before.push_back(version.rate);
    const std::size_t first_new = all.size();
    for (const auto& version : versions) {
      auto& row = all.emplace_back(version);
      row.id = parts_.ids.next();
      row.deployment_id = new_id;
      row.number = static_cast<std::int64_t>(all.size() == 1 ? 1 : all[all.size() - 2].number + 1);
      row.created_at = now;
      out.modelServerVersionIds.push_back(row.id);
      before.push_back(0);
      if (!run && was_started && row.rate > 0)
        return invalid_field(fmt::format("modelServerVersions[{}].rate", all.size() - first_new - 1),
                             {"服务正在运行：保存的版本不能有流量，应为 0",
                              "the service runs: a version that is only saved has no share, so 0"});
    }
    TRY(settle_shares(all, versions.size(), shares, "modelServerVersions[0]"));
    begin_rollout(all, before, was_started);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i < first_new) {
        store::update(tx, all[i]);
      } else {
        store::insert(tx, all[i]);
      }
    }
    note(tx, new_id, extends.empty() ? "Created" : "VersionAdded", shares_text(all));
    parts_.audit.record(tx, call, run ? "service.create" : "service.save", "service", new_id, out.name);
    return out;
  });
  if (created.ok()) {
    controller_.publish(created->id);
    controller_.wake();
  }
  return created;
}

void Service::note(db::Transaction& tx, const std::string& deployment_id, std::string_view reason,
                   const Text& words) {
  store::insert_event(tx, {.deployment_id = deployment_id,
                           .id = parts_.ids.next(),
                           .at = parts_.clock.now(),
                           .version_id = {},
                           .replica_id = {},
                           .kind = "change",
                           .reason = std::string(reason),
                           .replicas_before = {},
                           .replicas_after = {},
                           .zh = words.zh,
                           .en = words.en});
}

Result<wire::ServerAnswer> Service::set_started(const http::Call& call, const std::string& id, bool started) {
  if (started) TRY(check_access(call));
  auto out = parts_.db.write([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    auto row = TRY(find(tx, call, id));
    if (row.started != started) {
      auto versions = store::versions_of(tx, id);
      if (started) begin_rollout(versions, std::vector<std::int64_t>(versions.size(), 0), false);
      for (const auto& version : versions) store::update(tx, version);
      note(tx, id, started ? "Started" : "Stopped", {});
    }
    row.started = started;
    row.updated_at = parts_.clock.now();
    store::update(tx, row);
    parts_.audit.record(tx, call, started ? "service.start" : "service.stop", "service", id, row.name);
    return answer(tx, row, call.request.language);
  });
  return published(std::move(out));
}

Result<wire::ServerAnswer> Service::published(Result<wire::ServerAnswer> changed) {
  if (!changed.ok()) return changed;
  controller_.publish(changed->id);
  controller_.wake();
  return named(std::move(*changed));
}

Result<void> Service::change_version(store::VersionRow& version, const wire::VersionChange& wanted,
                                     const std::string& field) {
  version.rate = wanted.rate.value_or(version.rate);
  version.min_replicas = wanted.minReplicas.value_or(version.min_replicas);
  version.max_replicas = wanted.maxReplicas.value_or(std::max(version.max_replicas, version.min_replicas));
  version.spec.metric = wanted.metric.value_or(version.spec.metric);
  version.spec.threshold = wanted.threshold.value_or(version.spec.threshold);
  if (version.max_replicas < version.min_replicas)
    return invalid_field(field + ".maxReplicas",
                         {"不能小于 minReplicas", "must not be less than minReplicas"});
  if (version.spec.port != 0 && version.max_replicas > 1)
    return invalid_field(field + ".maxReplicas", {"端口固定的版本只能有一个实例",
                                                  "a version with a fixed port can have one replica only"});
  TRY(check_metric(version.spec, field + ".metric"));
  const std::int64_t least =
      version.desired == 0 ? version.min_replicas : std::max<std::int64_t>(1, version.min_replicas);
  version.desired = std::clamp(version.desired, least, std::max(least, version.max_replicas));
  return {};
}

Result<wire::ServerAnswer> Service::change(const http::Call& call, const wire::ChangeRequest& request) {
  TRY(check_access(call));
  auto out = parts_.db.write([&](db::Transaction& tx) -> Result<wire::ServerAnswer> {
    auto row = TRY(find(tx, call, request.id));
    auto versions = store::versions_of(tx, row.id);
    std::vector<std::int64_t> before;
    for (const auto& version : versions) before.push_back(version.rate);
    for (std::size_t i = 0; i < request.versions.size(); ++i) {
      const std::string field = fmt::format("versions[{}]", i);
      const auto it = std::find_if(versions.begin(), versions.end(),
                                   [&](const auto& v) { return v.id == request.versions[i].id; });
      if (it == versions.end())
        return invalid_field(field + ".id", {"不是此服务的版本", "is not a version of this service"});
      TRY(change_version(*it, request.versions[i], field));
    }
    TRY(check_shares(versions, "versions[0].rate"));
    begin_rollout(versions, before, row.started);
    for (const auto& version : versions) store::update(tx, version);
    if (!request.versions.empty()) note(tx, row.id, "Changed", shares_text(versions));
    if (request.description) row.description = *request.description;
    row.updated_at = parts_.clock.now();
    store::update(tx, row);
    parts_.audit.record(tx, call, "service.change", "service", row.id, row.name);
    return answer(tx, row, call.request.language);
  });
  return published(std::move(out));
}

Result<Nothing> Service::remove(const http::Call& call, const std::string& id) {
  TRY(set_started(call, id, false));
  controller_.hurry(id);
  TRY(await_end(id));
  auto removed = parts_.db.write([&](db::Transaction& tx) -> Result<Nothing> {
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
  if (removed.ok()) controller_.publish();
  return removed;
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

}  // namespace lathe::serving
