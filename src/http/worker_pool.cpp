#include "http/worker_pool.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/wake_flag.h"

namespace lathe::http {

namespace {

// Only touched pages cost memory; enough for SQLite, JSON and TLS on one stack.
constexpr std::size_t kStackBytes = 1024 * 1024;

/// A thread without a job. Woken outside the pool's lock, which it need not take then.
struct Sleeper {
  WakeFlag woken;
  WorkerPool::Job* job = nullptr;  ///< none: look around, the pool is stopping
};

}  // namespace

struct WorkerPool::State {
  std::mutex mutex;
  std::condition_variable ended;
  std::deque<Job*> queue;
  // The last to fall asleep is woken first, so that the others can end.
  std::vector<Sleeper*> sleepers;
  std::size_t threads = 0, max_workers, max_queued;
  std::chrono::milliseconds idle_time;
  bool stopping = false;

  static void* enter(void* self) {
    pthread_setname_np(pthread_self(), "lathe-worker");
    static_cast<State*>(self)->work();
    return nullptr;
  }

  bool start_thread() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kStackBytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    const bool made = pthread_create(&thread, &attributes, &State::enter, this) == 0;
    pthread_attr_destroy(&attributes);
    if (made) ++threads;
    return made;
  }

  void work() {
    Sleeper self;
    std::unique_lock lock(mutex);
    for (;;) {
      Job* job = nullptr;
      if (!queue.empty()) {
        job = queue.front();
        queue.pop_front();
        lock.unlock();
      } else {
        if (stopping) break;
        self.job = nullptr;
        self.woken.clear();
        sleepers.push_back(&self);
        lock.unlock();
        if (!self.woken.wait_for(idle_time) && leave(lock, self)) break;
        self.woken.wait();  // somebody has picked this one, and is about to set it
        job = self.job;
      }
      if (job) job->run_job();
      lock.lock();
    }
    --threads;
    // Notified under the lock: the pool may be gone the moment it is released.
    ended.notify_all();
  }

  /// True, with the lock held: the thread has been idle for long, and nobody has picked it.
  bool leave(std::unique_lock<std::mutex>& lock, Sleeper& self) {
    lock.lock();
    if (std::erase(sleepers, &self) == 1) return true;
    lock.unlock();
    return false;
  }
};

WorkerPool::WorkerPool(std::size_t max_workers, std::size_t max_queued, std::chrono::milliseconds idle_time)
    : state_(std::make_unique<State>()) {
  state_->max_workers = std::max<std::size_t>(1, max_workers);
  state_->max_queued = max_queued;
  state_->idle_time = idle_time;
}

WorkerPool::~WorkerPool() {
  stop();
}

void WorkerPool::stop() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  for (auto* sleeper : state_->sleepers) sleeper->woken.set();
  state_->sleepers.clear();
  state_->ended.wait(lock, [&] { return state_->threads == 0; });
}

bool WorkerPool::submit(Job& job) {
  std::unique_lock lock(state_->mutex);
  if (state_->stopping) return false;
  if (!state_->sleepers.empty()) {
    Sleeper* sleeper = state_->sleepers.back();
    state_->sleepers.pop_back();
    sleeper->job = &job;
    lock.unlock();
    sleeper->woken.set();
    return true;
  }
  const bool grew = state_->threads < state_->max_workers && state_->start_thread();
  if (!grew && state_->threads == 0) log::error("no thread can be made for a request");
  if (!grew && (state_->threads == 0 || state_->queue.size() >= state_->max_queued)) return false;
  state_->queue.push_back(&job);
  return true;
}

std::size_t WorkerPool::workers() const {
  const std::lock_guard lock(state_->mutex);
  return state_->threads;
}

std::size_t WorkerPool::queued() const {
  const std::lock_guard lock(state_->mutex);
  return state_->queue.size();
}

}  // namespace lathe::http
