#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fields.h"
#include "base/result.h"

namespace lathe::engines {

/// The uid and gid of a job when nobody says otherwise: nobody's on the host, and not root's.
inline constexpr std::uint32_t kJobUid = 64646;

struct EnvVar {
  std::string name;
  std::string value;
};

/// A directory or a file of the host that the run sees. `path` is resolved strictly beneath `root`: a
/// symbolic link on the way that leads out of `root` makes the start fail, so `path` may be in the hands of a
/// user; `root` is trusted. `path` "" or "." is `root` itself.
struct Mount {
  std::string root;    ///< absolute
  std::string path;    ///< relative to root
  std::string target;  ///< absolute, in the run's view; made where absent. Not /, /proc, /dev, /sys.
  bool writable = false;
};

/// One accelerator, or a part of one, that a rank may use. It sees no other.
struct GpuGrant {
  std::int64_t index = 0;  ///< of the device on its node: /dev/nvidia<index>
  std::string uuid;        ///< "GPU-…"
  std::string mig_uuid;    ///< "MIG-…": only this slice of it
  /// Of a slice: its numbers on the device, which name the nodes it is opened by; -1: not known.
  std::int64_t gpu_instance = -1;
  std::int64_t compute_instance = -1;
  /// Only a share of it, held to by CUDA MPS: so much memory and so many of its cores, 0: not limited. An
  /// engine that cannot hold a run to its share refuses to start it.
  bool share = false;
  std::int64_t share_memory_bytes = 0;
  std::int64_t share_cores_percent = 0;
};

/// What one rank may use. 0 means "no limit of its own".
struct Resources {
  double cpus = 0;                ///< of CPU time a second; fractions are fine
  std::int64_t memory_bytes = 0;  ///< all memory of the rank, /tmp and /dev/shm included
  std::int64_t pids = 0;          ///< processes and threads
  std::int64_t shm_bytes = 0;     ///< size of /dev/shm; 0: half of memory_bytes
  std::vector<GpuGrant> gpus = {};
};

/// One process of a run. Ranks are numbered from 0 in the order of the plan.
struct RankPlan {
  std::vector<EnvVar> env = {};  ///< after the plan's own; the later one of a name wins
  Resources resources = {};
};

enum class Network {
  host,  ///< the host's own
  none,  ///< nothing but a loopback interface, which the ranks of one run share
};

/// Everything an engine needs to run something: a job's attempt or a serving replica. An engine knows plans
/// and nothing of what they are for. Plain data, also written to disk (see `fields`).
struct LaunchPlan {
  /// Identity and fence: a run id is started at most once, ever. A new attempt is a new id.
  /// Letters, digits, `-` and `_`, at most 64.
  std::string run_id;
  /// "host": the software of the machine; otherwise the digest ("sha256:…") of an image of the store.
  std::string image = "host";
  std::vector<std::string> argv;  ///< never a shell line; argv[0] is looked up in the run's PATH
  /// The run gets these and the ranks', and nothing of the server's: an engine adds only PATH, HOME, USER,
  /// LANG and TMPDIR where they are absent, and the variables that select its GPUs.
  std::vector<EnvVar> env = {};
  std::string work_dir = "/";  ///< in the run's view; where it starts
  /// In order: a later one may lie within an earlier one.
  std::vector<Mount> mounts = {};
  std::vector<RankPlan> ranks;  ///< at least one; all of them run or none
  Duration time_limit{0};       ///< from the moment it runs; 0: none
  Duration stop_grace{10'000};  ///< from the polite request (SIGTERM) to the end
  /// After the first rank has failed, how long the others may take to end by themselves before they are
  /// stopped (then stop_grace applies).
  Duration gang_grace{1'000};
  Network network = Network::host;
  /// Nothing of the image itself may be written; /tmp is the run's own, in memory. The image "host" is always
  /// read-only.
  bool read_only_root = false;
  /// Host directory for `rank-<N>.log` (standard output and error together, as written). Made where absent;
  /// the engine never deletes it.
  std::string log_dir;
  /// Of one rank's log. Beyond it the log keeps its head, and at the end its last 64 KiB, and says what is
  /// missing. 0: no limit.
  std::int64_t max_log_bytes = 0;
  /// Who it runs as where the server is root; files it makes belong to them. Never 0. Elsewhere it runs as
  /// the server's own user.
  std::int64_t uid = kJobUid;
  std::int64_t gid = kJobUid;
};

/// The log of one rank.
std::string rank_log_path(const LaunchPlan& plan, std::size_t rank);

/// Refuses what no engine could run (no ranks, no command, relative targets, NUL in an argument, …), naming
/// the field.
Result<void> check(const LaunchPlan& plan);

void fields(Fields& f, EnvVar& v);
void fields(Fields& f, Mount& m);
void fields(Fields& f, GpuGrant& g);
void fields(Fields& f, Resources& r);
void fields(Fields& f, RankPlan& r);
void fields(Fields& f, LaunchPlan& p);

}  // namespace lathe::engines
