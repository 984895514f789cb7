#include "gateway/upstream_pool.h"

namespace lathe::gateway {

namespace {

constexpr std::chrono::milliseconds kSweep{250};
constexpr std::chrono::seconds kKeepIdle{30};
/// Servers close idle connections after five seconds and more; a request that must not be repeated should not
/// meet one that is just being closed.
constexpr std::chrono::seconds kSurelyOpen{3};
constexpr std::size_t kMaxIdlePerUpstream = 1024;

}  // namespace

UpstreamConnection::UpstreamConnection(UpstreamPool& of, http::Loop& loop, Fd fd)
    : pool(of), socket(loop, std::move(fd), false), slot(of.all_.size()) {
  pool.all_.push_back(this);
}

UpstreamConnection::~UpstreamConnection() {
  pool.all_[slot] = pool.all_.back();
  pool.all_[slot]->slot = slot;
  pool.all_.pop_back();
}

UpstreamPool::Handle UpstreamPool::reuse(const Target& target, bool careful) {
  const auto it = idle_.find(target.serial);
  if (it == idle_.end()) return nullptr;
  auto& list = it->second;
  while (!list.empty()) {
    if (careful && list.back()->idle_since + kSurelyOpen < loop_.now()) return nullptr;
    Handle connection = std::move(list.back());
    list.pop_back();
    // Bytes that nobody asked for would be taken for the next answer.
    if (connection->timed_out || connection->socket.maybe_readable()) continue;
    connection->reused = true;
    connection->last = Moment::max();
    return connection;
  }
  return nullptr;
}

UpstreamPool::Handle UpstreamPool::make(const Target& target) {
  if (target.address_size == 0) return nullptr;
  Fd fd = http::Socket::begin_connect(target.address, target.address_size);
  if (!fd) return nullptr;
  auto connection = std::make_unique<UpstreamConnection>(*this, loop_, std::move(fd));
  if (!scheduled_) schedule();
  return connection;
}

void UpstreamPool::give_back(const Target& target, Handle connection) {
  auto& list = idle_[target.serial];
  if (list.size() >= kMaxIdlePerUpstream || connection->socket.maybe_readable()) return;
  connection->idle_since = loop_.now();
  connection->next = connection->idle_since + kKeepIdle;
  connection->last = Moment::max();
  list.push_back(std::move(connection));
}

void UpstreamPool::schedule() {
  scheduled_ = true;
  loop_.call_at(loop_.now() + kSweep, [this] {
    sweep();
    scheduled_ = false;
    if (!all_.empty()) schedule();
  });
}

void UpstreamPool::sweep() {
  const auto now = loop_.now();
  for (UpstreamConnection* one : all_) {
    if (one->timed_out || std::min(one->next, one->last) > now) continue;
    one->timed_out = true;
    one->socket.cancel();
  }
  for (auto it = idle_.begin(); it != idle_.end();) {
    std::erase_if(it->second, [](const Handle& connection) {
      return connection->timed_out || connection->socket.maybe_readable();
    });
    it = it->second.empty() ? idle_.erase(it) : std::next(it);
  }
}

}  // namespace lathe::gateway
