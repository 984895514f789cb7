#include "http/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "base/log.h"
#include "http/socket.h"

namespace lathe::http {

namespace {

constexpr int kEvents = 256;
/// Operations that one event may set off without a pause.
constexpr int kBudget = 64;

constexpr std::size_t kFrameStep = 128, kFrameClasses = 24, kFramesKept = 256;

struct FrameStore {
  struct Free {
    Free* next;
  };
  std::array<Free*, kFrameClasses> lists{};
  std::array<std::size_t, kFrameClasses> counts{};
  bool alive = true;
  ~FrameStore() {
    alive = false;
    for (Free* one : lists)
      while (one) ::operator delete(std::exchange(one, one->next));
  }
};
thread_local FrameStore frames;

}  // namespace

namespace detail {

void* take_frame(std::size_t size) {
  const std::size_t kind = (size + kFrameStep - 1) / kFrameStep;
  if (kind >= kFrameClasses) return ::operator new(size);
  FrameStore& store = frames;
  if (FrameStore::Free* found = store.lists[kind]) {
    store.lists[kind] = found->next;
    --store.counts[kind];
    return found;
  }
  return ::operator new(kind* kFrameStep);
}

void give_frame(void* frame, std::size_t size) noexcept {
  const std::size_t kind = (size + kFrameStep - 1) / kFrameStep;
  FrameStore& store = frames;
  if (kind >= kFrameClasses || !store.alive || store.counts[kind] >= kFramesKept) {
    ::operator delete(frame);
    return;
  }
  store.lists[kind] = new (frame) FrameStore::Free{store.lists[kind]};
  ++store.counts[kind];
}

}  // namespace detail

struct Loop::Detached {
  struct promise_type {
    Loop& loop;
    std::size_t slot;
    promise_type(Loop& on, Task<>&, std::function<void(std::exception_ptr)>&)
        : loop(on), slot(on.roots_.size()) {
      loop.roots_.push_back(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    ~promise_type() {
      auto& roots = loop.roots_;
      roots[slot] = roots.back();
      std::coroutine_handle<promise_type>::from_address(roots[slot].address()).promise().slot = slot;
      roots.pop_back();
    }
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

Loop::Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wakeup_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
  if (epoll_.get() < 0 || wakeup_.get() < 0 ||
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wakeup_.get(), &event) != 0)
    throw std::system_error(errno, std::generic_category(), "epoll");
}

Loop::~Loop() {
  while (!roots_.empty()) roots_.back().destroy();
  timers_.clear();
  posted_.clear();
  // In the opposite order: a later one may use an earlier one.
  while (!locals_.empty()) locals_.pop_back();
}

Loop::Detached Loop::drive(Loop&, Task<> task, std::function<void(std::exception_ptr)> done) {
  // What `done` holds outlives the task's frame, also where both are destroyed in the middle.
  const auto tell = std::move(done);
  Task<> running = std::move(task);
  std::exception_ptr thrown;
  try {
    co_await running;
  } catch (...) {
    thrown = std::current_exception();
  }
  tell(thrown);
}

void Loop::spawn(Task<> task, std::function<void(std::exception_ptr)> done) {
  drive(*this, std::move(task), std::move(done));
}

void Loop::post(std::function<void()> work) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(work));
  }
  const std::uint64_t one = 1;
  if (first) [[maybe_unused]]
    const auto wrote = ::write(wakeup_.get(), &one, sizeof one);
}

void Loop::stop() {
  post([this] { stopped_ = true; });
}

Loop::TimerId Loop::call_at(Moment when, std::function<void()> work) {
  const TimerId id{when, next_timer_++};
  timers_.emplace(id, std::move(work));
  return id;
}

Loop::Registration* Loop::watch(Socket& socket, int fd, bool first) {
  auto made = std::make_unique<Registration>();
  made->socket = &socket;
  made->first = first;
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.ptr = made.get()}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    log::error("epoll_ctl: {}", std::generic_category().message(errno));
    return nullptr;
  }
  return made.release();
}

void Loop::forget(Registration* registration) {
  if (!registration) return;
  registration->socket = nullptr;
  forgotten_.emplace_back(registration);
}

int Loop::wait_time() const {
  if (!ready_.empty() || stopped_) return 0;
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - std::chrono::steady_clock::now();
  return static_cast<int>(
      std::clamp<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(left).count(), 0, 60'000));
}

void Loop::run() {
  std::array<epoll_event, kEvents> events;
  while (!stopped_) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), kEvents, wait_time());
    now_ = std::chrono::steady_clock::now();
    bool woken = false;
    // Answers first, then requests: what is sent on goes out in bursts of one kind, too.
    for (const bool first : {true, false}) {
      for (int i = 0; i < count; ++i) {
        const auto& event = events[static_cast<std::size_t>(i)];
        if (!event.data.ptr) {
          woken = true;
          continue;
        }
        const auto* registration = static_cast<Registration*>(event.data.ptr);
        if (registration->first != first) continue;
        budget_ = kBudget;
        if (registration->socket) registration->socket->happened(event.events);
      }
    }
    run_ready();
    if (woken) run_posted();
    run_timers();
    forgotten_.clear();
  }
}

void Loop::run_ready() {
  resuming_.swap(ready_);
  for (const auto handle : resuming_) {
    budget_ = kBudget;
    handle.resume();
  }
  resuming_.clear();
}

void Loop::run_posted() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wakeup_.get(), &count, sizeof count);
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock(mutex_);
    work.swap(posted_);
  }
  for (const auto& one : work) {
    budget_ = kBudget;
    one();
  }
}

void Loop::run_timers() {
  while (!timers_.empty() && timers_.begin()->first.first <= now_) {
    auto one = timers_.extract(timers_.begin());
    budget_ = kBudget;
    one.mapped()();
  }
}

}  // namespace lathe::http
