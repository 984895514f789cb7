#include "gateway/waiting_room.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

namespace lathe::gateway {

using Timer =
    boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                      boost::asio::wait_traits<std::chrono::steady_clock>, http::Executor>;

struct WaitingRoom::Guest {
  explicit Guest(http::Executor executor) : timer(executor) {}
  Timer timer;
  bool released = false, left = false, gone = false;
};

http::Task<WaitingRoom::Outcome> WaitingRoom::wait(http::Connection& client,
                                                   std::shared_ptr<ServiceState> state,
                                                   std::size_t max_queued, Moment until,
                                                   std::function<bool()> still_waiting) {
  const auto guest = std::make_shared<Guest>(client.executor());
  guest->timer.expires_at(until);
  Guests::iterator place;
  {
    const std::scoped_lock lock(mutex_);
    Guests& here = guests_[state->id];
    if (here.size() >= max_queued) co_return Outcome::full;
    place = here.insert(here.end(), guest);
  }
  state->queued.enter(std::chrono::steady_clock::now());
  state->queued_total.fetch_add(1);
  if (still_waiting()) {
    client.when_readable([guest, &client] {
      if (guest->gone || !client.left()) return;
      guest->left = true;
      guest->timer.cancel();
    });
    while (!guest->released && !guest->left) {
      const auto [error] = co_await guest->timer.async_wait(http::kAwait);
      if (!error) break;
    }
    client.stop_watching();
  } else {
    guest->released = true;
  }
  guest->gone = true;
  state->queued.leave(std::chrono::steady_clock::now());
  {
    const std::scoped_lock lock(mutex_);
    const auto it = guests_.find(state->id);
    it->second.erase(place);
    if (it->second.empty()) guests_.erase(it);
  }
  if (guest->left) co_return Outcome::left;
  co_return guest->released ? Outcome::released : Outcome::timed_out;
}

void WaitingRoom::release(const std::string& service_id) {
  const std::scoped_lock lock(mutex_);
  const auto it = guests_.find(service_id);
  if (it == guests_.end()) return;
  for (const auto& guest : it->second)
    boost::asio::post(guest->timer.get_executor(), [guest] {
      guest->released = true;
      guest->timer.cancel();
    });
}

std::vector<std::string> WaitingRoom::services() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [id, guests] : guests_) out.push_back(id);
  return out;
}

}  // namespace lathe::gateway
