#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/fields.h"

/// What a job is: its kinds, its states, the reasons it can give for them, and what it asks for. Pure: no
/// database, no HTTP, no engine.
namespace lathe {

enum class JobKind { fine_tune, pretrain, modelling, evaluation };
inline constexpr JobKind kJobKinds[] = {JobKind::fine_tune, JobKind::pretrain, JobKind::modelling,
                                        JobKind::evaluation};
std::string_view name(JobKind kind);  ///< "fine_tune", …: the stored word
std::optional<JobKind> job_kind(std::string_view name);

/// The life of a job:
///
///     queued ──► starting ──► running ──► succeeded | failed
///       │           │            │
///       │           └─► queued   ├──► stopping ──► cancelled | succeeded | failed
///       │      (launch undone)   │
///       ├──► failed              └──► queued  (restarted by the platform, one attempt further)
///       └──► cancelled
///
/// A retry of an ended job goes back to queued, one attempt further.
enum class JobState { queued, starting, running, stopping, succeeded, failed, cancelled };
inline constexpr JobState kJobStates[] = {JobState::queued,   JobState::starting,  JobState::running,
                                          JobState::stopping, JobState::succeeded, JobState::failed,
                                          JobState::cancelled};
std::string_view name(JobState state);  ///< the stored word, and the own API's
std::optional<JobState> job_state(std::string_view name);

/// The one place that says which moves exist.
bool may_move(JobState from, JobState to);
/// Succeeded, failed or cancelled: nothing runs, and nothing will unless somebody retries.
bool is_ended(JobState state);
/// Starting, running or stopping: it holds its resources.
bool is_active(JobState state);

/// Why a job is in the state it is in.
enum class Reason {
  none,
  // waiting: the job is queued, and may start later
  waiting_for_turn,      ///< others are before it in the queue
  waiting_for_capacity,  ///< the resource group has no room now
  waiting_for_quota,     ///< its user's other jobs and services use up the quota
  quota_not_yet_valid,   ///< the quota's validity begins later
  quota_expired,         ///< the quota's validity is over; an administrator can prolong it
  waiting_for_image,     ///< its image is still being imported
  waiting_for_model,     ///< its model version is still being imported
  waiting_for_engine,    ///< the engine of its resource group does not answer
  waiting_to_restart,    ///< its last attempt failed through no fault of its own; a short pause
  // refused: the job can never start as it is
  exceeds_max_quota,  ///< more than its user's whole quota
  exceeds_group,      ///< more than the resource group has when empty
  group_unavailable,  ///< the resource group is gone, or its user may no longer use it
  input_unavailable,  ///< its image, model, dataset or a directory is gone
  // ended
  completed,        ///< exit code 0 on every rank
  exit_code,        ///< a rank ended with another exit code
  signal,           ///< a rank was killed by a signal that the platform did not send
  out_of_memory,    ///< a rank went over its memory
  time_limit,       ///< it ran longer than allowed
  stopped_by_user,  ///< somebody asked for it
  node_failure,     ///< a machine was lost
  engine_error,     ///< the engine could not start it, or lost it
  evicted,          ///< the engine took its place away
};
inline constexpr std::size_t kReasonCount = static_cast<std::size_t>(Reason::evicted) + 1;

enum class ReasonClass { none, waiting, refused, ended };

/// All there is to know about one reason.
struct ReasonInfo {
  Reason reason;
  std::string_view name;  ///< "WaitingForQuota": stored and shown
  ReasonClass kind;
  std::string_view status;  ///< the documented status of a job that has this reason; "" only for none
  Text words;
};
/// Every reason, in the order of the enum.
std::span<const ReasonInfo> reasons();
const ReasonInfo& info(Reason reason);
/// The state in which a job with this reason rests: queued, succeeded, failed or cancelled.
JobState resting_state(Reason reason);
std::string_view name(Reason reason);
std::optional<Reason> reason_named(std::string_view name);

/// Why, with the particulars: the number and whatever else is known.
struct Cause {
  Reason reason = Reason::none;
  int number = 0;    ///< the exit code, or the signal
  int rank = -1;     ///< of the rank that ended the job; -1: none in particular
  Text detail = {};  ///< in words: the engine's own, or the quota's figures; may be empty
  bool operator==(const Cause& other) const;
};
/// "ExitCode 7", "Signal 9", "WaitingForQuota": short and stable, for lists.
std::string label(const Cause& cause);
/// A sentence for a person.
Text describe(const Cause& cause);

/// The status words of the documented API: Pending, Running, Succeeded, Failed, Stopped.
std::string_view documented_status(JobState state);
/// The states a documented status word stands for; empty for a word that is none of them. Case matters not.
std::vector<JobState> states_of(std::string_view documented_status);

/// How accelerators are shared.
enum class GpuShare {
  none,  ///< whole devices
  vgpu,  ///< shares of a device: `memory_gb` and `cores` of each, at least one of them not 0
  mig,   ///< MIG slices of the profile `mig`
};
std::string_view name(GpuShare share);
std::optional<GpuShare> gpu_share(std::string_view name);

struct GpuRequest {
  int count = 0;  ///< devices, shares or slices
  GpuShare share = GpuShare::none;
  int memory_gb = 0;  ///< of each share; 0: not limited. Only vgpu
  int cores = 0;      ///< percent of a device's cores, of each share; 0: not limited. Only vgpu
  std::string mig;    ///< profile, e.g. "1g.10gb". Only mig
  bool operator==(const GpuRequest&) const = default;
};

/// What one rank needs.
struct ResourceRequest {
  int cpu = 1;        ///< cores
  int memory_gb = 1;  ///< GB (2^30 bytes)
  GpuRequest gpu;
  bool operator==(const ResourceRequest&) const = default;
};

enum class NodeRole { master, worker };
std::string_view name(NodeRole role);

/// `count` equal ranks. Masters come first, so that rank 0 is a master where there is one.
struct RankGroup {
  NodeRole role = NodeRole::worker;
  int count = 1;
  ResourceRequest each;
  bool operator==(const RankGroup&) const = default;
};

/// One rank of a job, expanded from its groups.
struct RankRequest {
  int rank = 0;
  NodeRole role = NodeRole::worker;
  int index = 0;  ///< within its role
  ResourceRequest need;
};
/// Masters first, then workers, each in the order of their groups.
std::vector<RankRequest> expand_ranks(std::span<const RankGroup> groups);

/// A sum of resources, as quotas and resource groups count them. GPUs are counted in the unit they are asked
/// in: whole devices, vGPU shares and MIG slices are three different things.
struct ResourceTotal {
  std::int64_t cpu = 0;
  std::int64_t memory_gb = 0;
  std::int64_t gpu = 0;
  std::int64_t vgpu = 0;
  std::int64_t mig = 0;
  ResourceTotal& operator+=(const ResourceTotal& other);
  ResourceTotal& operator-=(const ResourceTotal& other);
  bool operator==(const ResourceTotal&) const = default;
};
ResourceTotal total_of(const ResourceRequest& need, int times = 1);
ResourceTotal total_of(std::span<const RankGroup> groups);

/// `--name value`, and `${name}` in commands.
struct HyperParameter {
  std::string name;
  std::string value;
  std::string description;
};

struct EnvironmentVariable {
  std::string name;
  std::string value;
};

/// A directory of the user's that the job sees. `path` is relative to its root.
struct JobDirectory {
  enum class Source { none, user_root, public_root, model_version, dataset_version, job };
  Source source = Source::none;
  std::string owner;  ///< the user id of user_root; the id of the model or dataset version; else ""
  std::string path;   ///< beneath that root, without a leading '/'
  bool operator==(const JobDirectory&) const = default;
};

/// Everything that decides what runs. Written at creation, never changed: a retry runs the same spec.
struct JobSpec {
  JobKind kind = JobKind::modelling;
  std::string image;              ///< "name:tag", or "host": this machine's own software
  std::string image_id;           ///< of its record; "" for the host
  std::string framework;          ///< PyTorch, TensorFlow, scikit-learn, MPI; "" is PyTorch's environment
  std::string command;            ///< shell line with `${…}` placeholders; "" with a preset algorithm
  std::string algorithm_id;       ///< preset algorithm; "" for a custom command
  std::vector<std::string> argv;  ///< of a preset algorithm, complete
  std::string strategy;           ///< LoRA, FineTune, …
  std::vector<HyperParameter> common_parameters;
  std::vector<HyperParameter> tuning_parameters;
  std::vector<EnvironmentVariable> environment;
  JobDirectory work, model, input, output, checkpoint;
  std::string model_version_id;    ///< "" where the model is a directory or absent
  std::string dataset_version_id;  ///< "" where the input is a directory or absent
  std::string group_id;            ///< resource group
  std::vector<RankGroup> groups;
  std::vector<std::string> nodes;  ///< the machines asked for; empty: any
  int priority = 0;                ///< -100 … 100, higher first
  bool urgent = false;             ///< before every priority
  std::int64_t time_limit_s = 0;   ///< 0: none
  bool rdma = false;
  std::string rdma_resource;
};

struct Job {
  std::string id;
  std::string user_id;
  std::string user_name;
  std::string name;
  std::string description;
  JobSpec spec;
  JobState state = JobState::queued;
  Cause cause;
  double progress = 0;  ///< 0 … 1
  int attempt = 1;      ///< counts up with every retry and restart
  std::string run_id;   ///< what the engine knows the attempt by; "" until it is first started
  Time created_at{};
  Time queued_at{};  ///< of this attempt
  std::optional<Time> started_at, ended_at;
  std::int64_t version = 1;  ///< of the row: every change adds one
};

/// How long it has run, or ran; nothing before it started.
std::optional<Duration> run_time(const Job& job, Time now);

// Stored forms: a spec is one JSON column.
void fields(Fields& f, GpuRequest& gpu);
void fields(Fields& f, ResourceRequest& need);
void fields(Fields& f, RankGroup& group);
void fields(Fields& f, HyperParameter& parameter);
void fields(Fields& f, EnvironmentVariable& variable);
void fields(Fields& f, JobDirectory& directory);
void fields(Fields& f, JobSpec& spec);

}  // namespace lathe
