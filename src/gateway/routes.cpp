#include "gateway/routes.h"

#include <algorithm>

namespace lathe::gateway {

Service::Service(ServiceRoute route, std::vector<std::vector<std::shared_ptr<Target>>> targets)
    : route_(std::move(route)),
      targets_(std::move(targets)),
      current_(route_.versions.size(), 0),
      turn_(route_.versions.size(), 0) {}

std::optional<Service::Choice> Service::choose() {
  const std::scoped_lock lock(mutex_);
  std::int64_t total = 0;
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const int rate = route_.versions[i].rate;
    if (targets_[i].empty() || rate <= 0) continue;
    total += rate;
    current_[i] += rate;
    if (!best || current_[i] > current_[*best]) best = i;
  }
  if (!best) return std::nullopt;
  current_[*best] -= total;

  const auto& candidates = targets_[*best];
  const std::size_t first = turn_[*best]++ % candidates.size();
  std::size_t chosen = first;
  for (std::size_t i = 1; i < candidates.size(); ++i) {
    const std::size_t at = (first + i) % candidates.size();
    if (candidates[at]->in_flight < candidates[chosen]->in_flight) chosen = at;
  }
  return Choice{Lease(candidates[chosen]), &route_.versions[*best]};
}

Table::Table(std::vector<ServiceRoute> services, const Table* before) {
  for (auto& route : services) {
    std::vector<std::vector<std::shared_ptr<Target>>> by_version;
    for (const auto& version : route.versions) {
      auto& list = by_version.emplace_back();
      for (const auto& upstream : version.upstreams) {
        std::shared_ptr<Target> target;
        if (before)
          if (const auto it = before->targets_.find(upstream.id); it != before->targets_.end())
            target = it->second;
        if (!target || target->upstream.host != upstream.host || target->upstream.port != upstream.port) {
          target = std::make_shared<Target>();
          target->upstream = upstream;
          target->service_id = route.id;
          target->version_id = version.id;
        }
        targets_[upstream.id] = target;
        list.push_back(std::move(target));
      }
    }
    std::string name = route.name;
    services_[std::move(name)] = std::make_shared<Service>(std::move(route), std::move(by_version));
  }
}

Service* Table::find(std::string_view name) const {
  const auto it = services_.find(name);
  return it == services_.end() ? nullptr : it->second.get();
}

}  // namespace lathe::gateway
