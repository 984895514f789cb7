#pragma once

#include <boost/asio/execution_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gateway/routes.h"
#include "http/timed_socket.h"

namespace lathe::gateway {

/// One connection to an upstream, with the moment by which something must have happened on it.
struct UpstreamConnection {
  explicit UpstreamConnection(http::Executor executor) : socket(executor) {}
  http::Socket socket;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  bool timed_out = false;
  bool reused = false;
};

/// The upstream connections of one I/O thread: kept alive between requests, and cut when their deadline
/// passes (by one timer for all: a timer for each would cost as much as a system call). Lives in the thread's
/// io_context and goes with it.
class UpstreamPool final : public boost::asio::execution_context::service {
 public:
  using key_type = UpstreamPool;
  static boost::asio::execution_context::id id;
  explicit UpstreamPool(boost::asio::execution_context& context);

  using Handle = std::shared_ptr<UpstreamConnection>;
  /// An idle connection that the upstream has not closed, or nothing.
  Handle reuse(const Upstream& upstream);
  /// Watched until it is given back or dropped.
  Handle make(http::Executor executor);
  void give_back(const Upstream& upstream, Handle connection);

 private:
  void shutdown() override;
  void watch(const Handle& connection);
  void sweep();
  void schedule(http::Executor executor);

  static std::string key(const Upstream& upstream);
  std::map<std::string, std::vector<Handle>> idle_;
  std::vector<std::weak_ptr<UpstreamConnection>> watched_;
  std::unique_ptr<boost::asio::basic_waitable_timer<
      std::chrono::steady_clock, boost::asio::wait_traits<std::chrono::steady_clock>, http::Executor>>
      timer_;
};

}  // namespace lathe::gateway
