#include "serving/serving_service.h"

namespace lathe::serving {

namespace {

wire::ReplicaAnswer answer_of(const store::ReplicaRow& row, Language language) {
  return {.id = row.id,
          .state = row.state,
          .reason = row.reason.empty() ? row.stop_reason : row.reason,
          .detail = language == Language::zh ? row.detail_zh : row.detail_en,
          .log = row.log,
          .port = row.port,
          .createTime = row.created_at,
          .startTime = row.started_at,
          .readyTime = row.ready_at,
          .endTime = row.ended_at};
}

}  // namespace

/// Names come from accounts, which may have to read them: not within a transaction.
wire::VersionAnswer Service::named(wire::VersionAnswer version) {
  version.userName = parts_.accounts.name_of(version.createUser);
  return version;
}

wire::ServerAnswer Service::named(wire::ServerAnswer server) {
  server.userName = parts_.accounts.name_of(server.createUser);
  for (auto& version : server.modelServerVersions) version.userName = server.userName;
  return server;
}

wire::VersionAnswer Service::answer(db::Transaction& tx, const store::DeploymentRow& deployment,
                                    const store::VersionRow& row, Language language) {
  wire::VersionAnswer out{.id = row.id,
                          .modelServerId = deployment.id,
                          .modelServerName = deployment.name,
                          .createUser = deployment.user_id,
                          .userName = {},
                          .version = row.number,
                          .rate = row.rate,
                          .predictMinReplicas = row.min_replicas,
                          .predictMaxReplicas = row.max_replicas,
                          .desiredReplicas = row.desired,
                          .spec = row.spec,
                          .createTime = row.created_at,
                          .replicas = {}};
  std::string last_failure, trouble;
  bool live = false;
  for (const auto& replica : store::replicas_of(tx, row.id)) {
    out.readyReplicas += replica.state == "ready";
    live = live || replica.live();
    if (replica.state == "ended" && replica.reason != "Stopped") last_failure = replica.reason;
    const auto& shown = out.replicas.emplace_back(answer_of(replica, language));
    if (replica.live() && !shown.reason.empty()) trouble = shown.reason + " — " + shown.detail;
  }
  // Without a share it serves on as long as those that have one are not ready.
  const bool retiring = deployment.started && row.rate == 0 && out.readyReplicas > 0;
  if (retiring) {
    out.status = "Running";
  } else if (!deployment.started || row.rate == 0) {
    out.status = live ? "Stopping" : "Stopped";
  } else if (out.readyReplicas > 0) {
    out.status = "Running";
  } else if (!row.waiting.empty()) {
    out.status = row.waiting == "BackOff" ? "Failed" : "Pending";
  } else if (row.desired == 0 && !live) {
    out.status = "Sleeping";
  } else {
    out.status = "Starting";
  }
  out.statusReason = retiring ? "Retiring" : row.waiting;
  if (row.waiting == "BackOff" && !last_failure.empty()) out.statusReason += ": " + last_failure;
  const std::string& words = language == Language::zh ? row.waiting_zh : row.waiting_en;
  if (!words.empty()) out.statusReason += (out.statusReason.empty() ? "" : " — ") + words;
  if (out.statusReason.empty()) out.statusReason = trouble;
  return out;
}

wire::ServerAnswer Service::answer(db::Transaction& tx, const store::DeploymentRow& row, Language language) {
  wire::ServerAnswer out{.id = row.id,
                         .name = row.name,
                         .description = row.description,
                         .createUser = row.user_id,
                         .userName = {},
                         .path = row.path,
                         .url = "/serve/" + row.name + "/",
                         .createTime = row.created_at,
                         .updateTime = row.updated_at,
                         .modelServerVersions = {}};
  for (const auto& version : store::versions_of(tx, row.id))
    out.modelServerVersions.push_back(answer(tx, row, version, language));
  // The service is as well as its best version.
  for (const char* status : {"Running", "Starting", "Sleeping", "Pending", "Failed", "Stopping", "Stopped"})
    for (const auto& version : out.modelServerVersions)
      if (out.status.empty() && version.status == status) {
        out.status = version.status;
        out.statusReason = version.statusReason;
      }
  return out;
}

}  // namespace lathe::serving
