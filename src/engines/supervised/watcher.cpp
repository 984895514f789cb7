#include "engines/supervised/watcher.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <stdexcept>
#include <vector>

#include "base/log.h"

namespace lathe::engines {

namespace {

void add(const Fd& epoll, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

Watcher::Watcher()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) throw std::runtime_error("cannot make an epoll or event descriptor");
  if (!inotify_) log::warning("no inotify instance is left: changes of runs are noticed later");
  add(epoll_, wake_.get(), EPOLLIN);
  if (inotify_) add(epoll_, inotify_.get(), EPOLLIN);
  thread_ = std::thread([this] { run(); });
}

Watcher::~Watcher() {
  {
    const std::lock_guard guard(mutex_);
    ending_ = true;
  }
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
  thread_.join();
}

void Watcher::on_change(std::function<void(const std::string&)> callback) {
  const std::lock_guard guard(mutex_);
  callback_ = std::move(callback);
}

void Watcher::watch_folder(const std::string& run_id, const std::string& path) {
  if (!inotify_) return;
  const std::lock_guard guard(mutex_);
  const int watch = ::inotify_add_watch(inotify_.get(), path.c_str(), IN_MOVED_TO | IN_ONLYDIR);
  if (watch >= 0) {
    folders_[watch] = run_id;
  } else {
    log::warning("cannot watch {} ({}): its changes are noticed later", path, errno);
  }
}

void Watcher::watch_process(const std::string& run_id, Fd pidfd) {
  if (!pidfd) return;
  const std::lock_guard guard(mutex_);
  const int fd = pidfd.get();
  processes_[fd] = {run_id, std::move(pidfd)};
  add(epoll_, fd, EPOLLIN);
}

void Watcher::forget(const std::string& run_id) {
  const std::lock_guard guard(mutex_);
  for (auto it = folders_.begin(); it != folders_.end();) {
    if (it->second != run_id) {
      ++it;
      continue;
    }
    ::inotify_rm_watch(inotify_.get(), it->first);
    it = folders_.erase(it);
  }
}

void Watcher::report(const std::string& run_id) {
  {
    const std::lock_guard guard(mutex_);
    reports_.push_back(run_id);
  }
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Watcher::run() {
  while (true) {
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, -1);
    std::set<std::string> changed;
    std::vector<Fd> ended;
    {
      const std::lock_guard guard(mutex_);
      if (ending_) return;
      for (auto& run_id : reports_) changed.insert(std::move(run_id));
      reports_.clear();
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == wake_.get()) {
          std::uint64_t drained;
          (void)!::read(fd, &drained, sizeof drained);
        } else if (fd == inotify_.get()) {
          read_folders(changed);
        } else if (auto it = processes_.find(fd); it != processes_.end()) {
          changed.insert(it->second.first);
          ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
          ended.push_back(std::move(it->second.second));
          processes_.erase(it);
        }
      }
    }
    for (const auto& process : ended) {
      siginfo_t info{};
      ::waitid(P_PIDFD, static_cast<id_t>(process.get()), &info, WEXITED | WNOHANG);  // if it is a child
    }
    for (const auto& run_id : changed) call(run_id);
  }
}

void Watcher::read_folders(std::set<std::string>& changed) {
  alignas(inotify_event) char buffer[16 * 1024];
  ssize_t size;
  while ((size = ::read(inotify_.get(), buffer, sizeof buffer)) > 0) {
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      if (event->mask & IN_Q_OVERFLOW)
        for (const auto& [watch, run_id] : folders_) changed.insert(run_id);
      if (auto it = folders_.find(event->wd); it != folders_.end()) {
        if (event->mask & IN_IGNORED) {
          folders_.erase(it);
        } else {
          changed.insert(it->second);
        }
      }
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
  }
}

void Watcher::call(const std::string& run_id) {
  std::function<void(const std::string&)> callback;
  {
    const std::lock_guard guard(mutex_);
    callback = callback_;
  }
  if (callback) callback(run_id);
}

}  // namespace lathe::engines
