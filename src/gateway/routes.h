#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/counting.h"
#include "gateway/gateway.h"

namespace lathe::gateway {

/// Counts a request at its upstream from the choice to the last byte.
class Lease {
 public:
  Lease() = default;
  Lease(std::shared_ptr<Target> target, Moment now);
  Lease(Lease&&) = default;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease() { release(); }
  explicit operator bool() const { return target_ != nullptr; }
  Target* operator->() const { return target_.get(); }
  Target* get() const { return target_.get(); }
  Moment since() const { return since_; }
  /// The answer has begun.
  void begins_answer();

 private:
  void release();
  std::shared_ptr<Target> target_;
  Moment since_{};
  bool answered_ = false;
};

/// What stays the same of a service from table to table.
struct ServiceState {
  explicit ServiceState(std::string service_id) : id(std::move(service_id)) {}
  const std::string id;
  Level queued;
  std::atomic<std::uint64_t> queued_total{0}, refused{0};
};

/// One service's versions and upstreams.
class Service {
 public:
  Service(ServiceRoute route, std::vector<std::vector<std::shared_ptr<Target>>> targets,
          std::shared_ptr<ServiceState> state);

  const ServiceRoute& route() const { return route_; }
  const std::shared_ptr<ServiceState>& state() const { return state_; }
  bool has_upstream() const;
  /// `failed` is all there is, and could not be reached just now.
  bool has_only(const Target* failed, Moment now) const;

  struct Choice {
    enum class Kind {
      chosen,
      none,   ///< no version has an upstream
      stale,  ///< there are newer routes: look there
    };
    Kind kind = Kind::none;
    Lease lease;
    const VersionRoute* version = nullptr;
  };
  /// The next version by its share (smooth weighted round robin: exact over every cycle, and never several of
  /// a small share in a row), then its upstream with the fewest requests under way or given up, in turn where
  /// equal. `failed`, and upstreams that could not be reached just now, only where there is no other.
  Choice choose(Moment now, const Target* failed = nullptr);

  /// From now on every choice is stale.
  void retire();
  /// Goes on where `before` stood, so that shares stay exact across changes of other things.
  void take_over(const Service& before);

 private:
  const std::shared_ptr<Target>& least_loaded(std::size_t version, Moment now, const Target* failed);

  const ServiceRoute route_;
  const std::vector<std::vector<std::shared_ptr<Target>>> targets_;  ///< by version
  const std::shared_ptr<ServiceState> state_;
  mutable std::mutex mutex_;
  bool retired_ = false;
  std::vector<std::int64_t> current_;
  std::vector<std::size_t> turn_;
};

/// All services at one moment.
class Table {
 public:
  Service* find(std::string_view name) const;
  const std::map<std::string, std::shared_ptr<Service>, std::less<>>& services() const { return services_; }

 private:
  friend class Registry;
  std::map<std::string, std::shared_ptr<Service>, std::less<>> services_;
};

/// Makes tables, and keeps what outlives them: upstreams until their last request has ended, counters of
/// versions. Safe from any thread; outlives every lease.
class Registry {
 public:
  /// When it returns, no choice gives an upstream that is not in `services`.
  std::shared_ptr<const Table> set(std::vector<ServiceRoute> services);
  /// The same for the upstreams of this service, by its id.
  std::shared_ptr<const Table> set_one(ServiceRoute service);
  std::shared_ptr<const Table> table() const {
    const std::scoped_lock lock(table_mutex_);
    return table_;
  }
  Load load() const;
  Activity activity(const std::string& upstream_id) const;
  /// Set before the first lease. Called from wherever the last lease ends.
  void on_drained(std::function<void(const std::string&)> drained) { drained_ = std::move(drained); }

 private:
  friend class Lease;
  void ended(Target& target);
  void publish(std::shared_ptr<const Table> next);
  std::shared_ptr<Target> target_for(const ServiceRoute& service, const VersionRoute& version,
                                     const Upstream& upstream);
  /// Drains the targets for which `leaves` is true. Gives back the ids of those that had no request.
  template <class Leaves>
  std::vector<std::string> drain(Leaves leaves);
  void tell(const std::vector<std::string>& drained) const;
  std::shared_ptr<Service> make(ServiceRoute route, const Table& before);
  void forget_drained();

  std::function<void(const std::string&)> drained_;
  mutable std::mutex mutex_;
  // libstdc++ 12 unlocks an atomic shared_ptr that was read without a release: on some processors a reader
  // then finds one table's address with another's reference count.
  mutable std::mutex table_mutex_;  ///< held for the pointer's copy alone
  std::shared_ptr<const Table> table_ = std::make_shared<const Table>();
  std::map<std::string, std::shared_ptr<Target>> targets_;  ///< by id
  /// Upstreams no longer routed to; of one id there may be several, where its address changed.
  std::vector<std::shared_ptr<Target>> draining_;
  std::map<std::string, std::shared_ptr<ServiceState>> states_;  ///< by service id
  std::map<std::string, VersionCounters> gone_;  ///< by version id: of upstreams that are gone
};

}  // namespace lathe::gateway
