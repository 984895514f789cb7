#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "gateway/routes.h"
#include "http/loop.h"

namespace lathe::gateway {

/// Holds requests of services without an upstream. Safe from any thread.
class WaitingRoom {
 public:
  enum class Outcome {
    released,  ///< look at the routes again
    full,      ///< too many are here already
    timed_out,
    left,  ///< the client has
  };
  struct Visit {
    http::Loop& loop;
    /// Tells when the client leaves; with nothing it is to tell no more.
    const std::function<void(std::function<void()>)>& when_left;
    std::shared_ptr<ServiceState> state;
    std::size_t max_queued;
    Moment until;
    /// Asked once the request is in the room, so that a release just before is not missed.
    std::function<bool()> still_waiting;
  };
  /// On the loop's thread.
  http::Task<Outcome> wait(Visit& visit);
  void release(const std::string& service_id);
  std::vector<std::string> services() const;

 private:
  struct Guest;
  using Guests = std::list<std::shared_ptr<Guest>>;
  mutable std::mutex mutex_;
  std::map<std::string, Guests> guests_;  ///< by service id
};

}  // namespace lathe::gateway
