#include "gateway/waiting_room.h"

namespace lathe::gateway {

struct WaitingRoom::Guest {
  explicit Guest(http::Loop& on) : loop(on) {}
  void wake() {
    if (waiting) loop.resume_later(std::exchange(waiting, nullptr));
  }
  http::Loop& loop;
  std::coroutine_handle<> waiting;
  bool released = false, left = false, gone = false;
};

http::Task<WaitingRoom::Outcome> WaitingRoom::wait(Visit& visit) {
  struct Sleep {
    Guest& guest;
    bool await_ready() const { return guest.released || guest.left; }
    void await_suspend(std::coroutine_handle<> waiting) const { guest.waiting = waiting; }
    void await_resume() const {}
  };
  const auto guest = std::make_shared<Guest>(visit.loop);
  Guests::iterator place;
  {
    const std::scoped_lock lock(mutex_);
    Guests& here = guests_[visit.state->id];
    if (here.size() >= visit.max_queued) co_return Outcome::full;
    place = here.insert(here.end(), guest);
  }
  visit.state->queued.enter(Moment::clock::now());
  visit.state->queued_total.fetch_add(1);
  if (visit.still_waiting()) {
    visit.when_left([guest] {
      guest->left = true;
      guest->wake();
    });
    const auto timer = visit.loop.call_at(visit.until, [guest] { guest->wake(); });
    co_await Sleep{*guest};
    visit.loop.cancel(timer);
    visit.when_left({});
  } else {
    guest->released = true;
  }
  guest->gone = true;
  visit.state->queued.leave(Moment::clock::now());
  {
    const std::scoped_lock lock(mutex_);
    const auto it = guests_.find(visit.state->id);
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
    guest->loop.post([guest] {
      guest->released = true;
      guest->wake();
    });
}

std::vector<std::string> WaitingRoom::services() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [id, guests] : guests_) out.push_back(id);
  return out;
}

}  // namespace lathe::gateway
