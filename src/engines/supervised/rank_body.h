#pragma once

#include <cstdint>
#include <memory>

#include "base/fd.h"
#include "base/result.h"
#include "engines/engine.h"

namespace lathe::engines {

/// One rank of a run as its supervisor has it before it: a process of its own, or a container. Used by one
/// thread. Nothing here waits.
class RankBody {
 public:
  virtual ~RankBody() = default;

  /// Begins to make it. It says kReady or kFailed on the channel once there is one, and waits for kGo.
  virtual Result<void> begin() = 0;
  /// To its first process, see channel.h; -1: not yet, or no more.
  int channel() const { return channel_.get(); }
  void close_channel() { channel_.reset(); }
  /// The end of its output that is read, non-blocking; -1: not yet, or no more.
  int output() const { return output_.get(); }
  void close_output() { output_.reset(); }
  /// Readable when attend() has something to do; -1: there is nothing to wait for.
  virtual int signal() const { return -1; }
  /// An error: it cannot be made, and why.
  virtual Result<void> attend() { return {}; }
  /// It has said kDone.
  virtual void done() {}
  /// True when nothing of it is alive and nothing will be. Before begin() it is over.
  virtual bool over() = 0;
  /// Ends it at once, what is on its way included. May be called again.
  virtual void kill() = 0;
  /// Of its first process, on this machine; 0: none, or unknown.
  virtual std::int64_t pid() const = 0;

  struct Account {
    double cpu_seconds = 0;
    std::int64_t memory_peak_bytes = 0;
    bool out_of_memory = false;  ///< the kernel killed something of it at its memory limit
  };
  virtual Account account() = 0;
  /// Somebody beside the supervisor can end it (a daemon that is restarted): then nobody knows how the
  /// command would have ended.
  virtual bool has_other_masters() const { return false; }
  /// Removes what is left of it, once its end has been recorded.
  virtual void clear() = 0;

 protected:
  Fd channel_;
  Fd output_;
};

/// Makes the bodies of one run.
class Crew {
 public:
  virtual ~Crew() = default;
  /// Before the first body begins. May change what the calling process is and sees.
  virtual Result<void> prepare() { return {}; }
  /// The crew must outlive the body.
  virtual std::unique_ptr<RankBody> make(std::size_t rank) = 0;
};

}  // namespace lathe::engines
