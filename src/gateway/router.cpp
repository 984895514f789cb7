#include "gateway/router.h"

#include <algorithm>
#include <set>

namespace lathe::gateway {

namespace {

/// Between two looks whether an upstream that could not be reached is still the only one.
constexpr std::chrono::milliseconds kNotice{50};

}  // namespace

void Router::listen(Events events) {
  events_ = std::move(events);
  registry_.on_drained(events_.drained);
}

void Router::set_routes(std::vector<ServiceRoute> services) {
  release_waiting(*registry_.set(std::move(services)));
}

void Router::set_route(ServiceRoute service) {
  release_waiting(*registry_.set_one(std::move(service)));
}

void Router::release_waiting(const Table& table) {
  std::set<std::string> waiting;
  for (const auto& [name, service] : table.services())
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
    const Moment now = Moment::clock::now();
    if (is_unreachable(quest, *service, now)) return std::nullopt;
    auto choice = service->choose(now, quest.failed);
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
    if (!service) continue;
    const Moment now = Moment::clock::now();
    const bool unreachable = is_unreachable(quest, *service, now);
    if (!unreachable && service->has_upstream()) continue;
    begin_waiting(quest, *service);
    // Who keeps the routes will find out that it cannot be reached, and take it out or bring it back.
    const Moment until = unreachable ? std::min(*quest.held_until, now + kNotice) : *quest.held_until;
    std::function<bool()> still_waiting = [this, &quest, unreachable] {
      if (unreachable) return true;
      const auto table = registry_.table();
      const Service* now = table->find(quest.service);
      return now && !now->has_upstream() && now->route().hold.max_queued > 0;
    };
    const auto waited = co_await hold(quest, *service, until, std::move(still_waiting));
    if (waited == WaitingRoom::Outcome::released) continue;
    if (waited == WaitingRoom::Outcome::timed_out && unreachable) continue;
    if (waited == WaitingRoom::Outcome::left)
      co_return Error{Code::cancelled, {"客户端已断开", "the client has left"}};
    service->state()->refused.fetch_add(1);
    co_return Error{Code::unavailable, service->route().unavailable};
  }
}

/// The last try's upstream is the only one there is, and the request may wait.
bool Router::is_unreachable(const Quest& quest, const Service& service, Moment now) {
  return quest.failed && service.route().hold.max_queued > 0 &&
         (!quest.held_until || now < *quest.held_until) && service.has_only(quest.failed, now);
}

void Router::begin_waiting(Quest& quest, const Service& service) const {
  quest.retry_after = service.route().hold.retry_after;
  if (quest.held_until) return;
  if (events_.waiting) events_.waiting(service.state()->id);
  quest.held_until = Moment::clock::now() + service.route().hold.max_wait;
}

http::Task<WaitingRoom::Outcome> Router::hold(Quest& quest, Service& service, Moment until,
                                              std::function<bool()> still_waiting) {
  const std::size_t most = service.route().hold.max_queued;
  if (most == 0) co_return WaitingRoom::Outcome::full;
  WaitingRoom::Visit visit{.loop = quest.loop,
                           .when_left = quest.when_left,
                           .state = service.state(),
                           .max_queued = most,
                           .until = until,
                           .still_waiting = std::move(still_waiting)};
  co_return co_await room_.wait(visit);
}

}  // namespace lathe::gateway
