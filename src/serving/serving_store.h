#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "db/database.h"
#include "engines/launch_plan.h"
#include "serving/serving.h"

namespace lathe::serving::store {

struct DeploymentRow {
  std::string id, name, user_id, description, path;
  bool started = false;  ///< somebody wants it to run
  Time created_at{}, updated_at{};
};
void fields(Fields& f, DeploymentRow& row);

struct VersionRow {
  std::string id, deployment_id;
  std::int64_t number = 1;
  std::int64_t rate = 100;
  std::int64_t min_replicas = 1, max_replicas = 1;
  std::int64_t desired = 1;  ///< replicas the autoscaler wants; 0: asleep
  bool rolled_out = false;   ///< has had them all ready since it got its share
  std::string model_version_id;
  VersionSpec spec;
  std::string waiting;  ///< why replicas are missing, e.g. "WaitingForQuota"; "" if none are
  std::string waiting_zh, waiting_en;
  Time created_at{};
};
void fields(Fields& f, VersionRow& row);

/// What changes about a replica in its life, and what it is found by.
struct ReplicaHead {
  std::string id, version_id, deployment_id, user_id;
  std::string state;
  std::string reason;  ///< of an ended or unready one: "ExitCode 1", "OutOfMemory", …
  std::string detail_zh, detail_en;
  std::string stop_reason;  ///< of one that is stopped because something is wrong with it: "NotAnswering", …
  std::int64_t port = 0;
  Time created_at{};
  std::optional<Time> started_at, ready_at, stopping_at, ended_at;

  ReplicaState parsed_state() const { return replica_state(state).value_or(ReplicaState::ended); }
  bool live() const { return state != "ended"; }
  bool leaving() const { return state == "draining" || state == "stopping"; }
  bool failed() const { return state == "ended" && reason != "Stopped"; }
};
void fields(Fields& f, ReplicaHead& row);

struct ReplicaRow : ReplicaHead {
  std::string log;  ///< the last lines of a failed one
  std::int64_t cpu = 0, memory_gb = 0, gpu = 0, vgpu = 0, mig = 0;
  std::vector<engines::GpuGrant> grants;
  engines::LaunchPlan plan;
};
void fields(Fields& f, ReplicaRow& row);

/// Something that happened to a service: a scaling decision, a rollout, the end of a replica.
struct EventRow {
  std::string deployment_id, id;
  Time at{};
  std::string version_id, replica_id;  ///< "" where it is about none
  std::string kind;                    ///< scale, rollout, replica, change
  std::string reason;
  std::optional<std::int64_t> replicas_before, replicas_after;  ///< of a scaling decision
  std::string zh, en;
};
void fields(Fields& f, EventRow& row);

void insert(db::Transaction& tx, const DeploymentRow& row);
void insert(db::Transaction& tx, const VersionRow& row);
void insert(db::Transaction& tx, const ReplicaRow& row);
void update(db::Transaction& tx, const DeploymentRow& row);
void update(db::Transaction& tx, const VersionRow& row);
void update(db::Transaction& tx, const ReplicaHead& row);
/// Of one that has failed: the last lines of its log.
void keep_log(db::Transaction& tx, std::string_view replica_id, const std::string& lines);

std::optional<DeploymentRow> deployment(db::Transaction& tx, std::string_view id);
std::optional<DeploymentRow> deployment_named(db::Transaction& tx, std::string_view name);
std::vector<DeploymentRow> deployments(db::Transaction& tx);
/// A page, newest first; `user_id` and `name_part` empty mean any.
std::vector<DeploymentRow> deployment_page(db::Transaction& tx, std::string_view user_id,
                                           std::string_view name_part, std::int64_t offset,
                                           std::int64_t limit);
std::int64_t count_deployments(db::Transaction& tx, std::string_view user_id, std::string_view name_part);
/// Older than `before` ("": from the newest).
std::vector<DeploymentRow> deployments_before(db::Transaction& tx, std::string_view user_id,
                                              std::string_view before, std::int64_t limit);
std::int64_t remove_deployment(db::Transaction& tx, std::string_view id);

std::optional<VersionRow> version(db::Transaction& tx, std::string_view id);
std::vector<VersionRow> versions_of(db::Transaction& tx, std::string_view deployment_id);
std::vector<VersionRow> versions(db::Transaction& tx);
/// The name of a deployment of which a version runs in that image, with that tag unless that is empty.
std::optional<std::string> deployment_using_image(db::Transaction& tx, std::string_view image_id,
                                                  std::string_view tag);
/// The manifests that versions run from.
std::vector<std::string> image_digests(db::Transaction& tx);
std::vector<std::string> deployments_using_model(db::Transaction& tx, std::string_view model_version_id);

std::optional<ReplicaRow> replica(db::Transaction& tx, std::string_view id);
std::vector<ReplicaRow> replicas_of(db::Transaction& tx, std::string_view version_id);
std::vector<ReplicaRow> live_replicas(db::Transaction& tx);
/// Keeps the newest `keep` ended replicas of a version; gives the ids of those forgotten.
std::vector<std::string> forget_ended(db::Transaction& tx, std::string_view version_id, std::int64_t keep);

/// All replicas there are, oldest first, without their plans.
std::vector<ReplicaHead> replica_heads(db::Transaction& tx);
std::vector<ReplicaHead> replica_heads_of(db::Transaction& tx, std::string_view deployment_id);

/// Forgets the oldest events of the service beyond some hundreds.
void insert_event(db::Transaction& tx, const EventRow& event);
/// Newest first, older than `before` ("": from the newest).
std::vector<EventRow> events_of(db::Transaction& tx, std::string_view deployment_id, std::string_view before,
                                std::int64_t limit);

/// What live replicas hold; of one user, or of all where `user_id` is empty.
quotas::Compute held(db::Transaction& tx, std::string_view user_id);

}  // namespace lathe::serving::store
