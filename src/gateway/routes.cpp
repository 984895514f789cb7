#include "gateway/routes.h"

#include <algorithm>
#include <set>

namespace lathe::gateway {

Lease::Lease(std::shared_ptr<Target> target, Moment now) : target_(std::move(target)), since_(now) {
  target_->requests.fetch_add(1, std::memory_order_relaxed);
  target_->in_flight.enter(now);
}

Lease& Lease::operator=(Lease&& other) noexcept {
  release();
  target_ = std::move(other.target_);
  since_ = other.since_;
  answered_ = other.answered_;
  return *this;
}

void Lease::begins_answer() {
  answered_ = true;
  target_->begins_answer(Moment::clock::now() - since_);
}

void Lease::release() {
  if (!target_) return;
  const Moment now = std::chrono::steady_clock::now();
  target_->duration.add(now - since_);
  if (!answered_) target_->leaves_unanswered(now);
  const auto left = target_->in_flight.leave(now);
  if (left == 0 && !target_->routed.load()) target_->registry->ended(*target_);
  target_.reset();
}

Service::Service(ServiceRoute route, std::vector<std::vector<std::shared_ptr<Target>>> targets,
                 std::shared_ptr<ServiceState> state)
    : route_(std::move(route)),
      targets_(std::move(targets)),
      state_(std::move(state)),
      current_(route_.versions.size(), 0),
      turn_(route_.versions.size(), 0) {}

bool Service::has_upstream() const {
  for (std::size_t i = 0; i < targets_.size(); ++i)
    if (!targets_[i].empty() && route_.versions[i].rate > 0) return true;
  return false;
}

bool Service::has_only(const Target* failed, Moment now) const {
  bool found = false;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    if (route_.versions[i].rate <= 0) continue;
    for (const auto& target : targets_[i]) {
      if (target.get() != failed || !target->shunned(now)) return false;
      found = true;
    }
  }
  return found;
}

Service::Choice Service::choose(Moment now, const Target* failed) {
  const std::scoped_lock lock(mutex_);
  if (retired_) return {.kind = Choice::Kind::stale, .lease = {}, .version = nullptr};
  std::int64_t total = 0;
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const int rate = route_.versions[i].rate;
    if (targets_[i].empty() || rate <= 0) continue;
    total += rate;
    current_[i] += rate;
    if (!best || current_[i] > current_[*best]) best = i;
  }
  if (!best) return {};
  current_[*best] -= total;
  return {.kind = Choice::Kind::chosen,
          .lease = Lease(least_loaded(*best, now, failed), now),
          .version = &route_.versions[*best]};
}

const std::shared_ptr<Target>& Service::least_loaded(std::size_t version, Moment now, const Target* failed) {
  const auto& candidates = targets_[version];
  const std::size_t first = turn_[version]++ % candidates.size();
  std::size_t chosen = first;
  auto cost = [&](std::size_t at) {
    const Target& target = *candidates[at];
    constexpr std::uint64_t kLastResort = std::uint64_t{1} << 32;
    return target.load(now) + (&target == failed ? 2 * kLastResort : 0) +
           (target.shunned(now) ? kLastResort : 0);
  };
  if (candidates.size() > 1) {
    std::uint64_t lowest = cost(first);
    for (std::size_t i = 1; i < candidates.size(); ++i) {
      const std::size_t at = (first + i) % candidates.size();
      if (const auto here = cost(at); here < lowest) {
        lowest = here;
        chosen = at;
      }
    }
  }
  return candidates[chosen];
}

void Service::retire() {
  const std::scoped_lock lock(mutex_);
  retired_ = true;
}

void Service::take_over(const Service& before) {
  const std::scoped_lock lock(before.mutex_);
  // Between other shares the old positions mean nothing.
  bool same = before.route_.versions.size() == route_.versions.size();
  for (std::size_t i = 0; same && i < route_.versions.size(); ++i)
    same = before.route_.versions[i].id == route_.versions[i].id &&
           before.route_.versions[i].rate == route_.versions[i].rate &&
           before.targets_[i].empty() == targets_[i].empty();
  if (!same) return;
  current_ = before.current_;
  turn_ = before.turn_;
}

Service* Table::find(std::string_view name) const {
  const auto it = services_.find(name);
  return it == services_.end() ? nullptr : it->second.get();
}

std::shared_ptr<Target> Registry::target_for(const ServiceRoute& service, const VersionRoute& version,
                                             const Upstream& upstream) {
  auto& slot = targets_[upstream.id];
  if (slot && slot->upstream.host == upstream.host && slot->upstream.port == upstream.port) return slot;
  if (slot) draining_.push_back(std::move(slot));
  slot = std::make_shared<Target>(upstream, service.id, version.id, this);
  return slot;
}

std::shared_ptr<Service> Registry::make(ServiceRoute route, const Table& before) {
  std::vector<std::vector<std::shared_ptr<Target>>> by_version;
  for (const auto& version : route.versions) {
    auto& list = by_version.emplace_back();
    for (const auto& upstream : version.upstreams) list.push_back(target_for(route, version, upstream));
  }
  auto& state = states_[route.id];
  if (!state) state = std::make_shared<ServiceState>(route.id);
  const Service* old = before.find(route.name);
  auto made = std::make_shared<Service>(std::move(route), std::move(by_version), state);
  if (old && old->state() == state) made->take_over(*old);
  return made;
}

void Registry::publish(std::shared_ptr<const Table> next) {
  // What was there before ends with the parameter, after the lock.
  const std::scoped_lock lock(table_mutex_);
  table_.swap(next);
}

std::shared_ptr<const Table> Registry::set(std::vector<ServiceRoute> services) {
  std::vector<std::string> drained;
  std::shared_ptr<Table> next = std::make_shared<Table>();
  {
    const std::scoped_lock lock(mutex_);
    const auto before = table();
    // From here a request that still holds the old table finds every choice stale and looks again, so what
    // the new table lacks gets nothing more. Nobody waits long: the new one is there in microseconds.
    for (const auto& [name, service] : before->services_) service->retire();
    std::set<std::string> routed, known;
    for (auto& route : services) {
      known.insert(route.id);
      for (const auto& version : route.versions)
        for (const auto& upstream : version.upstreams) routed.insert(upstream.id);
      std::string name = route.name;
      next->services_[std::move(name)] = make(std::move(route), *before);
    }
    drained = drain([&](const Target& target) { return !routed.contains(target.upstream.id); });
    std::erase_if(gone_, [&](const auto& one) { return !known.contains(one.second.service_id); });
    std::erase_if(states_, [&](const auto& one) {
      return !known.contains(one.first) && one.second->queued.now() == 0;
    });
    publish(next);
  }
  tell(drained);
  return next;
}

std::shared_ptr<const Table> Registry::set_one(ServiceRoute service) {
  std::vector<std::string> drained;
  std::shared_ptr<Table> next;
  {
    const std::scoped_lock lock(mutex_);
    const auto before = table();
    next = std::make_shared<Table>(*before);
    std::set<std::string> ids;  // its own, and that of a deleted one whose name it has
    std::erase_if(next->services_, [&](const auto& one) {
      const auto& id = one.second->state()->id;
      if (id != service.id && one.first != service.name) return false;
      one.second->retire();
      ids.insert(id);
      return true;
    });
    ids.insert(service.id);
    std::set<std::string> routed;
    for (const auto& version : service.versions)
      for (const auto& upstream : version.upstreams) routed.insert(upstream.id);
    std::string name = service.name;
    next->services_[std::move(name)] = make(std::move(service), *before);
    drained = drain([&](const Target& target) {
      return ids.contains(target.service_id) && !routed.contains(target.upstream.id);
    });
    publish(next);
  }
  tell(drained);
  return next;
}

template <class Leaves>
std::vector<std::string> Registry::drain(Leaves leaves) {
  std::erase_if(targets_, [&](auto& one) {
    if (!leaves(*one.second)) return false;
    draining_.push_back(one.second);
    return true;
  });
  std::vector<std::string> drained;
  for (const auto& target : draining_) {
    target->routed = false;
    if (target->in_flight.now() == 0 && !target->told.exchange(true)) drained.push_back(target->upstream.id);
  }
  forget_drained();
  return drained;
}

void Registry::tell(const std::vector<std::string>& drained) const {
  if (!drained_) return;
  for (const auto& id : drained) drained_(id);
}

void Registry::forget_drained() {
  const Moment now = std::chrono::steady_clock::now();
  std::erase_if(draining_, [&](const std::shared_ptr<Target>& target) {
    if (target->in_flight.now() > 0) return false;
    VersionCounters& sum = gone_[target->version_id];
    sum.service_id = target->service_id;
    sum.version_id = target->version_id;
    target->add_to(sum, now);
    return true;
  });
}

void Registry::ended(Target& target) {
  {
    const std::scoped_lock lock(mutex_);
    forget_drained();
  }
  if (!target.told.exchange(true) && drained_) drained_(target.upstream.id);
}

Activity Registry::activity(const std::string& upstream_id) const {
  const std::scoped_lock lock(mutex_);
  Activity sum;
  const auto take = [&](const Target& target) {
    sum.in_flight += target.in_flight.now();
    sum.sent += target.sent();
  };
  if (const auto it = targets_.find(upstream_id); it != targets_.end()) take(*it->second);
  for (const auto& target : draining_)
    if (target->upstream.id == upstream_id) take(*target);
  return sum;
}

Load Registry::load() const {
  const std::scoped_lock lock(mutex_);
  Load out;
  out.at = std::chrono::steady_clock::now();
  std::map<std::string, VersionCounters> versions;
  const auto now = table();
  for (const auto& [name, service] : now->services()) {
    const ServiceState& state = *service->state();
    out.services.push_back({state.id, state.queued.now(), state.queued_total.load(), state.refused.load(),
                            state.queued.seconds(out.at)});
    for (const auto& version : service->route().versions) {
      auto& sum = versions[version.id];
      sum.service_id = state.id;
      sum.version_id = version.id;
    }
  }
  auto take = [&](const Target& target, bool draining) {
    UpstreamCounters one;
    one.service_id = target.service_id;
    one.version_id = target.version_id;
    one.upstream_id = target.upstream.id;
    one.draining = draining;
    target.add_to(one, out.at);
    auto& sum = versions[target.version_id];
    sum.service_id = target.service_id;
    sum.version_id = target.version_id;
    add(sum, one);
    out.upstreams.push_back(std::move(one));
  };
  for (const auto& [id, target] : targets_) take(*target, false);
  for (const auto& target : draining_) take(*target, true);
  for (auto& [id, sum] : versions) {
    if (const auto it = gone_.find(id); it != gone_.end()) add(sum, it->second);
    out.versions.push_back(std::move(sum));
  }
  return out;
}

}  // namespace lathe::gateway
