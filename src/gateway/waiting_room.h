#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "gateway/routes.h"
#include "http/connection.h"

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
  /// Waits on the connection's I/O thread. `still_waiting` is asked once the request is in the room, so that
  /// a release just before is not missed.
  http::Task<Outcome> wait(http::Connection& client, std::shared_ptr<ServiceState> state,
                           std::size_t max_queued, Moment until, std::function<bool()> still_waiting);
  void release(const std::string& service_id);
  std::vector<std::string> services() const;

 private:
  struct Guest;
  using Guests = std::list<std::shared_ptr<Guest>>;
  mutable std::mutex mutex_;
  std::map<std::string, Guests> guests_;  ///< by service id
};

}  // namespace lathe::gateway
