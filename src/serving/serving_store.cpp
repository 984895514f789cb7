#include "serving/serving_store.h"

#include "db/row.h"

namespace lathe::serving::store {

namespace {

constexpr std::int64_t kKeptEvents = 500;

const std::string kSelectHeads =
    "SELECT id, version_id, deployment_id, user_id, state, reason, detail_zh, detail_en, stop_reason, port, "
    "created_at, started_at, ready_at, stopping_at, ended_at FROM replicas";

/// For LIKE with ESCAPE '!': the text as a substring, whatever it holds.
std::string like_part(std::string_view text) {
  std::string out = "%";
  for (const char c : text) {
    if (c == '%' || c == '_' || c == '!') out += '!';
    out += c;
  }
  return out + "%";
}

std::string text(std::string_view value) {
  return std::string(value);
}

}  // namespace

void fields(Fields& f, DeploymentRow& r) {
  f.field("id", r.id);
  f.field("name", r.name);
  f.field("user_id", r.user_id);
  f.field("description", r.description);
  f.field("path", r.path);
  f.field("started", r.started);
  f.field("created_at", r.created_at);
  f.field("updated_at", r.updated_at);
}

void fields(Fields& f, VersionRow& r) {
  f.field("id", r.id);
  f.field("deployment_id", r.deployment_id);
  f.field("number", r.number);
  f.field("rate", r.rate);
  f.field("min_replicas", r.min_replicas);
  f.field("max_replicas", r.max_replicas);
  f.field("desired", r.desired);
  f.field("rolled_out", r.rolled_out);
  f.field("model_version_id", r.model_version_id);
  f.field("spec", r.spec);
  f.field("waiting", r.waiting);
  f.field("waiting_zh", r.waiting_zh);
  f.field("waiting_en", r.waiting_en);
  f.field("created_at", r.created_at);
}

void fields(Fields& f, ReplicaHead& r) {
  f.field("id", r.id);
  f.field("version_id", r.version_id);
  f.field("deployment_id", r.deployment_id);
  f.field("user_id", r.user_id);
  f.field("state", r.state);
  f.field("reason", r.reason);
  f.field("detail_zh", r.detail_zh);
  f.field("detail_en", r.detail_en);
  f.field("stop_reason", r.stop_reason);
  f.field("port", r.port);
  f.field("created_at", r.created_at);
  f.field("started_at", r.started_at);
  f.field("ready_at", r.ready_at);
  f.field("stopping_at", r.stopping_at);
  f.field("ended_at", r.ended_at);
}

void fields(Fields& f, ReplicaRow& r) {
  fields(f, static_cast<ReplicaHead&>(r));
  f.field("log", r.log);
  f.field("cpu", r.cpu);
  f.field("memory_gb", r.memory_gb);
  f.field("gpu", r.gpu);
  f.field("vgpu", r.vgpu);
  f.field("mig", r.mig);
  f.field("grants", r.grants);
  f.field("plan", r.plan);
}

void fields(Fields& f, EventRow& e) {
  f.field("deployment_id", e.deployment_id);
  f.field("id", e.id);
  f.field("at", e.at);
  f.field("version_id", e.version_id);
  f.field("replica_id", e.replica_id);
  f.field("kind", e.kind);
  f.field("reason", e.reason);
  f.field("replicas_before", e.replicas_before);
  f.field("replicas_after", e.replicas_after);
  f.field("zh", e.zh);
  f.field("en", e.en);
}

void insert(db::Transaction& tx, const DeploymentRow& row) {
  db::insert(tx, "deployments", row);
}
void insert(db::Transaction& tx, const VersionRow& row) {
  db::insert(tx, "deployment_versions", row);
}
void insert(db::Transaction& tx, const ReplicaRow& row) {
  db::insert(tx, "replicas", row);
}
void update(db::Transaction& tx, const DeploymentRow& row) {
  db::update(tx, "deployments", row);
}
void update(db::Transaction& tx, const VersionRow& row) {
  db::update(tx, "deployment_versions", row);
}
void update(db::Transaction& tx, const ReplicaHead& row) {
  db::update(tx, "replicas", row);
}

void keep_log(db::Transaction& tx, std::string_view replica_id, const std::string& lines) {
  tx.execute("UPDATE replicas SET log = $2 WHERE id = $1", {text(replica_id), lines});
}

std::optional<DeploymentRow> deployment(db::Transaction& tx, std::string_view id) {
  return db::select_one<DeploymentRow>(tx, "SELECT * FROM deployments WHERE id = $1", {text(id)});
}

std::optional<DeploymentRow> deployment_named(db::Transaction& tx, std::string_view name) {
  return db::select_one<DeploymentRow>(tx, "SELECT * FROM deployments WHERE name = $1", {text(name)});
}

std::vector<DeploymentRow> deployments(db::Transaction& tx) {
  return db::select<DeploymentRow>(tx, "SELECT * FROM deployments ORDER BY id");
}

std::vector<DeploymentRow> deployment_page(db::Transaction& tx, std::string_view user_id,
                                           std::string_view name_part, std::int64_t offset,
                                           std::int64_t limit) {
  const std::string like = like_part(name_part);
  if (user_id.empty())
    return db::select<DeploymentRow>(
        tx, "SELECT * FROM deployments WHERE name LIKE $1 ESCAPE '!' ORDER BY id DESC LIMIT $2 OFFSET $3",
        {like, limit, offset});
  return db::select<DeploymentRow>(tx,
                                   "SELECT * FROM deployments WHERE user_id = $1 AND name LIKE $2 ESCAPE '!' "
                                   "ORDER BY id DESC LIMIT $3 OFFSET $4",
                                   {text(user_id), like, limit, offset});
}

std::int64_t count_deployments(db::Transaction& tx, std::string_view user_id, std::string_view name_part) {
  const std::string like = like_part(name_part);
  const auto rows =
      user_id.empty()
          ? tx.query("SELECT count(*) FROM deployments WHERE name LIKE $1 ESCAPE '!'", {like})
          : tx.query("SELECT count(*) FROM deployments WHERE user_id = $1 AND name LIKE $2 ESCAPE '!'",
                     {text(user_id), like});
  return rows.integer(0, 0);
}

std::vector<DeploymentRow> deployments_before(db::Transaction& tx, std::string_view user_id,
                                              std::string_view before, std::int64_t limit) {
  const std::string last = before.empty() ? "~" : text(before);  // '~' sorts after every id
  if (user_id.empty())
    return db::select<DeploymentRow>(tx, "SELECT * FROM deployments WHERE id < $1 ORDER BY id DESC LIMIT $2",
                                     {last, limit});
  return db::select<DeploymentRow>(
      tx, "SELECT * FROM deployments WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
      {text(user_id), last, limit});
}

std::int64_t remove_deployment(db::Transaction& tx, std::string_view id) {
  return tx.execute("DELETE FROM deployments WHERE id = $1", {text(id)});
}

std::optional<VersionRow> version(db::Transaction& tx, std::string_view id) {
  return db::select_one<VersionRow>(tx, "SELECT * FROM deployment_versions WHERE id = $1", {text(id)});
}

std::vector<VersionRow> versions_of(db::Transaction& tx, std::string_view deployment_id) {
  return db::select<VersionRow>(tx, "SELECT * FROM deployment_versions WHERE deployment_id = $1 ORDER BY id",
                                {text(deployment_id)});
}

std::vector<VersionRow> versions(db::Transaction& tx) {
  return db::select<VersionRow>(tx, "SELECT * FROM deployment_versions ORDER BY deployment_id, id");
}

std::vector<std::string> deployments_using_model(db::Transaction& tx, std::string_view model_version_id) {
  const auto rows = tx.query(
      "SELECT d.name FROM deployment_versions v JOIN deployments d ON d.id = v.deployment_id "
      "WHERE v.model_version_id = $1 LIMIT 3",
      {text(model_version_id)});
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

std::optional<std::string> deployment_using_image(db::Transaction& tx, std::string_view image_id,
                                                  std::string_view tag) {
  for (const auto& version : versions(tx)) {
    const std::string_view image = version.spec.image;
    const bool other_tag = !tag.empty() && !image.ends_with(":" + text(tag));
    if (version.spec.image_id != image_id || other_tag) continue;
    const auto found = deployment(tx, version.deployment_id);
    return found ? found->name : version.deployment_id;
  }
  return std::nullopt;
}

std::vector<std::string> image_digests(db::Transaction& tx) {
  std::vector<std::string> out;
  for (const auto& version : versions(tx))
    if (!version.spec.image_digest.empty()) out.push_back(version.spec.image_digest);
  return out;
}

std::optional<ReplicaRow> replica(db::Transaction& tx, std::string_view id) {
  return db::select_one<ReplicaRow>(tx, "SELECT * FROM replicas WHERE id = $1", {text(id)});
}

std::vector<ReplicaRow> replicas_of(db::Transaction& tx, std::string_view version_id) {
  return db::select<ReplicaRow>(tx, "SELECT * FROM replicas WHERE version_id = $1 ORDER BY id",
                                {text(version_id)});
}

std::vector<ReplicaRow> live_replicas(db::Transaction& tx) {
  return db::select<ReplicaRow>(tx, "SELECT * FROM replicas WHERE state <> 'ended' ORDER BY id");
}

std::vector<std::string> forget_ended(db::Transaction& tx, std::string_view version_id, std::int64_t keep) {
  const auto rows = tx.query(
      "DELETE FROM replicas WHERE version_id = $1 AND state = 'ended' AND id NOT IN (SELECT id FROM replicas "
      "WHERE version_id = $1 AND state = 'ended' ORDER BY id DESC LIMIT $2) RETURNING id",
      {text(version_id), keep});
  std::vector<std::string> out;
  for (std::size_t i = 0; i < rows.size(); ++i) out.push_back(rows.text(i, 0));
  return out;
}

std::vector<ReplicaHead> replica_heads(db::Transaction& tx) {
  return db::select<ReplicaHead>(tx, kSelectHeads + " ORDER BY id");
}

std::vector<ReplicaHead> replica_heads_of(db::Transaction& tx, std::string_view deployment_id) {
  return db::select<ReplicaHead>(tx, kSelectHeads + " WHERE deployment_id = $1 ORDER BY id",
                                 {text(deployment_id)});
}

void insert_event(db::Transaction& tx, const EventRow& event) {
  db::insert(tx, "deployment_events", event);
  tx.execute(
      "DELETE FROM deployment_events WHERE deployment_id = $1 AND id <= (SELECT id FROM deployment_events "
      "WHERE deployment_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
      {event.deployment_id, kKeptEvents});
}

std::vector<EventRow> events_of(db::Transaction& tx, std::string_view deployment_id, std::string_view before,
                                std::int64_t limit) {
  const std::string last = before.empty() ? "~" : text(before);
  return db::select<EventRow>(
      tx, "SELECT * FROM deployment_events WHERE deployment_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
      {text(deployment_id), last, limit});
}

quotas::Compute held(db::Transaction& tx, std::string_view user_id) {
  constexpr std::string_view kSums =
      "SELECT COALESCE(SUM(cpu), 0), COALESCE(SUM(memory_gb), 0), COALESCE(SUM(gpu), 0), COALESCE(SUM(vgpu), "
      "0), "
      "COALESCE(SUM(mig), 0) FROM replicas WHERE state <> 'ended'";
  const auto rows =
      user_id.empty() ? tx.query(kSums) : tx.query(std::string(kSums) + " AND user_id = $1", {text(user_id)});
  return {.cpu = static_cast<double>(rows.integer(0, 0)),
          .memory_gb = static_cast<double>(rows.integer(0, 1)),
          .gpu = rows.integer(0, 2),
          .vgpu = rows.integer(0, 3),
          .mig = rows.integer(0, 4),
          .jobs = 0};
}

}  // namespace lathe::serving::store
