#include "gateway/router.h"

#include <set>

namespace lathe::gateway {

void Router::listen(Events events) {
  events_ = std::move(events);
  registry_.on_drained(events_.drained);
}

void Router::set_routes(std::vector<ServiceRoute> services) {
  const auto table = registry_.set(std::move(services));
  std::set<std::string> waiting;
  for (const auto& [name, service] : table->services())
    if (!service->has_upstream() && service->route().hold.max_queued > 0)
      waiting.insert(service->state()->id);
  for (const auto& id : room_.services())
    if (!waiting.contains(id)) room_.release(id);
}

std::optional<Result<Place>> Router::find_now(Quest& quest) {
  for (;;) {
    const auto table = registry_.table();
    Service* service = table->find(quest.service);
    if (!service || !hooks_.may_call(quest.caller, service->route()))
      return not_found({"服务", "service"}, quest.service);
    auto choice = service->choose(Moment::clock::now(), quest.failed);
    if (choice.kind == Service::Choice::Kind::stale) continue;
    if (choice.kind == Service::Choice::Kind::none) return std::nullopt;
    Place place;
    place.lease = std::move(choice.lease);
    place.path = choice.version->path;
    place.grpc = choice.version->grpc;
    return Result<Place>(std::move(place));
  }
}

http::Task<Result<Place>> Router::find(Quest& quest) {
  for (;;) {
    if (auto now = find_now(quest)) co_return std::move(*now);
    const auto table = registry_.table();
    Service* service = table->find(quest.service);
    if (!service || service->has_upstream()) continue;
    quest.retry_after = service->route().hold.retry_after;
    if (!quest.held_until) {
      if (events_.waiting) events_.waiting(service->state()->id);
      quest.held_until = Moment::clock::now() + service->route().hold.max_wait;
    }
    const auto waited = co_await hold(quest, *service);
    if (waited == WaitingRoom::Outcome::released) continue;
    if (waited == WaitingRoom::Outcome::left)
      co_return Error{Code::cancelled, {"客户端已断开", "the client has left"}};
    service->state()->refused.fetch_add(1);
    co_return Error{Code::unavailable, service->route().unavailable};
  }
}

http::Task<WaitingRoom::Outcome> Router::hold(Quest& quest, Service& service) {
  const std::size_t most = service.route().hold.max_queued;
  if (most == 0) co_return WaitingRoom::Outcome::full;
  auto still_waiting = [this, &quest] {
    const auto table = registry_.table();
    const Service* now = table->find(quest.service);
    return now && !now->has_upstream() && now->route().hold.max_queued > 0;
  };
  WaitingRoom::Visit visit{.loop = quest.loop,
                           .when_left = quest.when_left,
                           .state = service.state(),
                           .max_queued = most,
                           .until = *quest.held_until,
                           .still_waiting = std::move(still_waiting)};
  co_return co_await room_.wait(visit);
}

}  // namespace lathe::gateway
