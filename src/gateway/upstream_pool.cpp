#include "gateway/upstream_pool.h"

#include "http/channel.h"

namespace lathe::gateway {

namespace {

constexpr std::chrono::milliseconds kSweep{250};
constexpr std::chrono::seconds kKeepIdle{30};
constexpr std::size_t kMaxIdlePerUpstream = 256;

}  // namespace

boost::asio::execution_context::id UpstreamPool::id;

UpstreamPool::UpstreamPool(boost::asio::execution_context& context) : service(context) {}

std::string UpstreamPool::key(const Upstream& upstream) {
  return upstream.id + '@' + upstream.host + ':' + std::to_string(upstream.port);
}

UpstreamPool::Handle UpstreamPool::reuse(const Upstream& upstream) {
  const auto it = idle_.find(key(upstream));
  if (it == idle_.end()) return nullptr;
  while (!it->second.empty()) {
    Handle connection = std::move(it->second.back());
    it->second.pop_back();
    if (!connection->socket.is_open() || http::peer_closed(connection->socket.native_handle())) continue;
    connection->reused = true;
    return connection;
  }
  idle_.erase(it);
  return nullptr;
}

UpstreamPool::Handle UpstreamPool::make(http::Executor executor) {
  auto connection = std::make_shared<UpstreamConnection>(executor);
  watched_.push_back(connection);
  if (!timer_) {
    timer_ = std::make_unique<decltype(timer_)::element_type>(executor);
    schedule(executor);
  }
  return connection;
}

void UpstreamPool::give_back(const Upstream& upstream, Handle connection) {
  auto& list = idle_[key(upstream)];
  if (list.size() >= kMaxIdlePerUpstream) return;
  connection->deadline = std::chrono::steady_clock::now() + kKeepIdle;
  list.push_back(std::move(connection));
}

void UpstreamPool::schedule(http::Executor executor) {
  timer_->expires_after(kSweep);
  timer_->async_wait([this, executor](const boost::system::error_code& error) {
    if (error || !timer_) return;
    sweep();
    schedule(executor);
  });
}

void UpstreamPool::sweep() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(watched_, [&](const std::weak_ptr<UpstreamConnection>& weak) {
    const Handle connection = weak.lock();
    if (!connection) return true;
    if (connection->deadline > now) return false;
    connection->timed_out = true;
    boost::system::error_code ignored;
    connection->socket.close(ignored);
    return true;
  });
  for (auto it = idle_.begin(); it != idle_.end();) {
    std::erase_if(it->second, [](const Handle& connection) { return !connection->socket.is_open(); });
    it = it->second.empty() ? idle_.erase(it) : std::next(it);
  }
}

void UpstreamPool::shutdown() {
  timer_.reset();
  idle_.clear();
  watched_.clear();
}

}  // namespace lathe::gateway
