#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "gateway/gateway.h"
#include "gateway/routes.h"
#include "gateway/waiting_room.h"
#include "http/task.h"

namespace lathe::gateway {

/// One request's way to an upstream, over all its tries.
struct Quest {
  std::string service;  ///< its name
  const http::Identity& caller;
  http::Loop& loop;
  /// Tells when the client leaves; with nothing it is to tell no more.
  std::function<void(std::function<void()>)> when_left;

  const Target* failed = nullptr;      ///< the last try's
  std::optional<Moment> held_until{};  ///< set with the first wait: for all of them together
  std::chrono::seconds retry_after{1};
};

/// Where a request goes.
struct Place {
  Lease lease;
  std::string path;  ///< before the request's own
  bool grpc = false;
};

/// Chooses upstreams, and has requests wait for them. Safe from any thread.
class Router {
 public:
  explicit Router(const Hooks& hooks) : hooks_(hooks) {}
  void listen(Events events);
  void set_routes(std::vector<ServiceRoute> services);
  void set_route(ServiceRoute service);
  Registry& registry() { return registry_; }
  const Registry& registry() const { return registry_; }

  /// The same where nobody has to wait; nothing where somebody may have to.
  std::optional<Result<Place>> find_now(Quest& quest);
  /// An upstream, now or when there is one. Errors: not_found (no such service for this caller), unavailable,
  /// cancelled (the client has left).
  http::Task<Result<Place>> find(Quest& quest);

 private:
  static bool is_unreachable(const Quest& quest, const Service& service, Moment now);
  /// Those whose wait is over by this table.
  void release_waiting(const Table& table);
  void begin_waiting(Quest& quest, const Service& service) const;
  http::Task<WaitingRoom::Outcome> hold(Quest& quest, Service& service, Moment until,
                                        std::function<bool()> still_waiting);

  const Hooks& hooks_;
  Events events_;
  Registry registry_;
  WaitingRoom room_;
};

}  // namespace lathe::gateway
