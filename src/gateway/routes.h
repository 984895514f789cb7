#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/gateway.h"

namespace lathe::gateway {

/// One upstream as the gateway keeps it, across tables.
struct Target {
  Upstream upstream;
  std::string service_id, version_id;
  std::atomic<std::uint64_t> requests{0}, failures{0}, in_flight{0}, bytes_in{0}, bytes_out{0};
  std::atomic<std::uint64_t> first_byte_us{0};
};

/// Counts a request at its upstream from the choice to the last byte.
class Lease {
 public:
  Lease() = default;
  explicit Lease(std::shared_ptr<Target> target) : target_(std::move(target)) {
    ++target_->requests;
    ++target_->in_flight;
  }
  Lease(Lease&&) = default;
  Lease& operator=(Lease&& other) noexcept {
    release();
    target_ = std::move(other.target_);
    return *this;
  }
  ~Lease() { release(); }
  explicit operator bool() const { return target_ != nullptr; }
  Target* operator->() const { return target_.get(); }

 private:
  void release() {
    if (target_) --target_->in_flight;
    target_.reset();
  }
  std::shared_ptr<Target> target_;
};

/// One service's versions and upstreams.
class Service {
 public:
  Service(ServiceRoute route, std::vector<std::vector<std::shared_ptr<Target>>> targets);

  const ServiceRoute& route() const { return route_; }
  struct Choice {
    Lease lease;
    const VersionRoute* version;
  };
  /// The next version by its share (smooth weighted round robin: exact over every cycle, and never several of
  /// a small share in a row), then its upstream with the fewest requests under way, in turn where equal.
  /// Nothing if no version has one.
  std::optional<Choice> choose();

 private:
  ServiceRoute route_;
  std::vector<std::vector<std::shared_ptr<Target>>> targets_;  ///< by version
  std::mutex mutex_;
  std::vector<std::int64_t> current_;
  std::vector<std::size_t> turn_;
};

/// All services at one moment.
class Table {
 public:
  /// Carries the targets of upstreams that stay, and the state of services that did not change, over from
  /// `before`.
  Table(std::vector<ServiceRoute> services, const Table* before);
  Service* find(std::string_view name) const;
  const std::map<std::string, std::shared_ptr<Service>, std::less<>>& services() const { return services_; }
  const std::map<std::string, std::shared_ptr<Target>>& targets() const { return targets_; }

 private:
  std::map<std::string, std::shared_ptr<Service>, std::less<>> services_;
  std::map<std::string, std::shared_ptr<Target>> targets_;
};

}  // namespace lathe::gateway
