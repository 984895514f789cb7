#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/fd.h"
#include "http/task.h"

namespace lathe::http {

class Socket;

/// The events of one I/O thread: descriptors (epoll, edge-triggered), times, functions posted by other
/// threads, and the coroutines that wait for them. Unless told otherwise, everything is called on the thread
/// that runs the loop.
class Loop {
 public:
  using Moment = std::chrono::steady_clock::time_point;

  Loop();
  /// Destroys the coroutines that are still suspended.
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Until `stop`.
  void run();
  /// Any thread.
  void stop();
  /// Any thread. Runs it soon, in order.
  void post(std::function<void()> work);

  /// When the events at hand were fetched: what deadlines are measured from.
  Moment now() const { return now_; }

  using TimerId = std::pair<Moment, std::uint64_t>;
  TimerId call_at(Moment when, std::function<void()> work);
  /// Harmless where it was called already.
  void cancel(const TimerId& timer) { timers_.erase(timer); }

  /// Begins `task` at once; `done` gets what it threw, or nothing.
  void spawn(Task<> task, std::function<void(std::exception_ptr)> done);

  /// This loop's own T, made when first asked for.
  template <class T>
  T& local() {
    static const char key = 0;
    for (const auto& [known, object] : locals_)
      if (known == &key) return *static_cast<T*>(object.get());
    auto made = std::make_shared<T>(*this);
    locals_.emplace_back(&key, made);
    return *made;
  }

  /// Awaited before little is sent: goes on once all events at hand have been looked at, so that what they
  /// set off leaves in one burst. A reader that is fed piece by piece falls asleep between the pieces, and
  /// waking it is the dearest part of a small send; a burst finds it awake.
  struct Burst {
    Loop& loop;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> waiting) const { loop.resume_later(waiting); }
    void await_resume() const {}
  };
  Burst burst() { return {*this}; }

  /// Resumes `handle` soon, after the others that are ready.
  void resume_later(std::coroutine_handle<> handle) { ready_.push_back(handle); }
  /// False once a coroutine has gone on for long without a pause: others wait.
  bool may_go_on() { return budget_ > 0 && --budget_ > 0; }

 private:
  friend class Socket;
  struct Detached;
  /// What epoll knows of a socket; outlives it by the events already fetched.
  struct Registration {
    Socket* socket = nullptr;
    bool first = false;  ///< its events are looked at before those of the others
  };

  Registration* watch(Socket& socket, int fd, bool first);
  void forget(Registration* registration);
  int wait_time() const;
  void run_timers();
  void run_posted();
  void run_ready();
  static Detached drive(Loop& loop, Task<> task, std::function<void(std::exception_ptr)> done);

  Fd epoll_, wakeup_;
  Moment now_ = std::chrono::steady_clock::now();
  int budget_ = 0;
  bool stopped_ = false;
  std::uint64_t next_timer_ = 0;
  std::map<TimerId, std::function<void()>> timers_;
  std::vector<std::coroutine_handle<>> ready_, resuming_;
  std::vector<std::unique_ptr<Registration>> forgotten_;
  std::vector<std::coroutine_handle<>> roots_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  ///< under the mutex
  std::vector<std::pair<const void*, std::shared_ptr<void>>> locals_;
};

}  // namespace lathe::http
