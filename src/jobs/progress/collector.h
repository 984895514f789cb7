#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/directory.h"
#include "jobs/job.h"
#include "jobs/progress/trainer_output.h"

namespace lathe::progress {

/// Follows what one run of a job writes, from where it stood at the last look: its log, and the files of
/// known forms in its output and checkpoint directories. One object a run; used by one thread at a time;
/// every look is bounded in bytes and files, so that a job cannot make the server work for ever.
class Collector {
 public:
  struct Sources {
    std::string log_path;  ///< of rank 0, on the host
    std::vector<Directory>
        directories;  ///< output, checkpoint, and TensorBoard directories; read beneath only
    /// Only files changed after this moment count: what an earlier job left in the same directory is not
    /// ours.
    Time since{};
  };
  explicit Collector(Sources sources);

  /// What is new since the last look. Metrics may be told again after a restart of the server: they are the
  /// same (key, step).
  Findings look();

 private:
  void read_log(Findings& out);
  void read_files(const Directory& directory, std::size_t index, Findings& out);
  void read_file(const Directory& directory, const std::string& path, const FileInfo& info,
                 std::string& seen_key, Findings& out);

  Sources sources_;
  std::uint64_t log_offset_ = 0;
  std::string partial_line_;
  std::optional<std::int64_t> last_step_;
  struct Seen {
    Time modified{};
    std::uint64_t size = 0;
    std::uint64_t offset = 0;  ///< of files that grow
  };
  std::map<std::string, Seen> seen_;
};

}  // namespace lathe::progress
