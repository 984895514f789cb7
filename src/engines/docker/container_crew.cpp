#include "engines/docker/container_crew.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "engines/docker/container_spec.h"
#include "engines/docker/daemon.h"
#include "engines/docker/init/setup.h"
#include "engines/supervised/cgroup.h"
#include "engines/supervised/channel.h"

namespace lathe::engines {

namespace {

constexpr std::chrono::seconds kFirstWord{60};  ///< from the daemon's "started" to the first program's call
constexpr std::chrono::seconds kLastWord{20};   ///< for the daemon to answer once everything is over
constexpr int kMakersAtOnce = 8;
constexpr int kAttempts = 3;                         ///< at a container that the daemon fails to start
constexpr std::chrono::milliseconds kBetween{300};   ///< two attempts
constexpr std::chrono::seconds kDaemonRestarts{60};  ///< for a daemon that is away to be back

/// The daemon's own trouble, or a name that is still another attempt's.
bool may_pass(Code code) {
  return code == Code::internal || code == Code::already_exists;
}

std::string socket_name(std::size_t rank) {
  return fmt::format("rank-{}.socket", rank);
}

Result<Fd> listen_at(const RunFolder& folder, const std::string& name) {
  Fd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made) return system_error("socket", errno);
  ::unlinkat(folder.fd(), name.c_str(), 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // By the descriptor: a path of the data directory may be longer than an address can be.
  const std::string path = fmt::format("/proc/self/fd/{}/{}", folder.fd(), name);
  if (path.size() >= sizeof address.sun_path) return system_error("bind " + name, ENAMETOOLONG);
  std::strcpy(address.sun_path, path.c_str());
  if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return system_error("bind " + name, errno);
  // For the container's user, whoever he is here; the folder around it is closed to everybody else.
  if (::fchmodat(folder.fd(), name.c_str(), 0666, 0) != 0 || ::listen(made.get(), 1) != 0)
    return system_error("listen at " + name, errno);
  return made;
}

Result<Fd> file_of(const std::string& text) {
  Fd file(::memfd_create("setup", MFD_CLOEXEC));
  if (!file) return system_error("memfd_create", errno);
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t done = ::write(file.get(), rest.data(), rest.size());
    if (done <= 0) return system_error("write setup", errno);
    rest.remove_prefix(static_cast<std::size_t>(done));
  }
  return file;
}

bool send_setup(int channel, const int (&fds)[container::kDescriptors]) {
  char what = channel::kSetup;
  iovec piece{&what, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fds);
  std::memcpy(CMSG_DATA(header), fds, sizeof fds);
  return ::sendmsg(channel, &message, MSG_NOSIGNAL) == 1;
}

}  // namespace

/// What the threads that make the containers share with the supervisor's, and outlive it with.
struct ContainerCrew::Shared {
  explicit Shared(const LaunchRecord& launch) : launch(launch), daemon(launch.container->socket) {}
  const LaunchRecord launch;
  const Daemon daemon;
  std::mutex mutex;
  std::condition_variable changed;
  bool given_up = false;      ///< make no more
  bool anchor_ready = false;  ///< rank 0 runs: its network can be joined
  int makers = 0;
};

namespace {

/// A container on its way, made by a thread of its own, since the daemon takes its time.
struct Making {
  Fd finished{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  // Under the shared mutex:
  std::optional<Error> error;
  bool connected = false;
  bool over = false;  ///< the thread has ended
  bool made = false;  ///< there is, or may be, a container
};

/// A flag of the container's state; false too where the daemon does not know.
bool daemon_says(const ContainerCrew::Shared& shared, std::size_t rank, std::string_view flag) {
  const auto described = shared.daemon.inspect(rank_name(shared.launch, rank));
  if (!described.ok() || !described->is_object()) return false;
  const auto* state = described->as_object().if_contains("State");
  const auto* value = state && state->is_object() ? state->as_object().if_contains(flag) : nullptr;
  return value && value->is_bool() && value->as_bool();
}

class Maker {
 public:
  Maker(std::shared_ptr<ContainerCrew::Shared> shared, std::shared_ptr<Making> making, std::size_t rank,
        std::vector<FoundMount> mounts, std::string channel)
      : shared_(std::move(shared)),
        making_(std::move(making)),
        rank_(rank),
        mounts_(std::move(mounts)),
        channel_(std::move(channel)) {}

  void run() {
    auto made = make();
    const std::lock_guard guard(shared_->mutex);
    --shared_->makers;
    if (!made.ok()) making_->error = std::move(made).error();
    making_->over = true;
    const std::uint64_t one = 1;
    (void)!::write(making_->finished.get(), &one, sizeof one);
    shared_->changed.notify_all();
  }

 private:
  bool joins() const { return shared_->launch.plan.network == Network::none && rank_ > 0; }

  /// Waits for its turn; false: nobody wants it any more.
  bool await_turn() {
    std::unique_lock lock(shared_->mutex);
    shared_->changed.wait(lock, [&] {
      return shared_->given_up || ((!joins() || shared_->anchor_ready) && shared_->makers < kMakersAtOnce);
    });
    ++shared_->makers;
    return !shared_->given_up;
  }

  Result<void> make() {
    if (!await_turn()) return {};
    TRY(start());
    std::unique_lock lock(shared_->mutex);
    if (rank_ == 0) shared_->anchor_ready = true;
    shared_->changed.notify_all();
    if (shared_->changed.wait_for(lock, kFirstWord, [&] { return making_->connected || shared_->given_up; }))
      return {};
    return Error{Code::failed_precondition,
                 {"容器已启动，但其首个程序没有联系监管进程",
                  "the container was started, but its first program has not called its supervisor"}};
  }

  /// Nothing of the job has run before its first program has called: until then a daemon that is just being
  /// restarted, or whose runtime stumbled, is no reason to fail the job.
  Result<void> start() {
    const auto patience = std::chrono::steady_clock::now() + kDaemonRestarts;
    for (int failures = 0;;) {
      auto started = start_once();
      std::unique_lock lock(shared_->mutex);
      if (started.ok() || making_->connected || shared_->given_up) return {};
      const bool away = started.error().code == Code::unavailable;
      if (!away) ++failures;
      const bool again = away ? std::chrono::steady_clock::now() < patience
                              : may_pass(started.error().code) && failures < kAttempts;
      if (!again) return started;
      log::warning("rank {}: {}; trying again", rank_, started.error().describe(Language::en));
      if (shared_->changed.wait_for(lock, kBetween, [&] { return making_->connected || shared_->given_up; }))
        return {};
      lock.unlock();
      // What broke off half way still has the name; what was only answered too late is about to call.
      if (daemon_says(*shared_, rank_, "Running")) return {};
      (void)shared_->daemon.remove(rank_name(shared_->launch, rank_)).ok();
    }
  }

  Result<void> start_once() {
    const LaunchRecord& launch = shared_->launch;
    const Daemon& daemon = shared_->daemon;
    const std::string name = rank_name(launch, rank_);
    const Json body = container_body(launch, rank_, mounts_, channel_, joins() ? rank_name(launch, 0) : "");
    {
      const std::lock_guard guard(shared_->mutex);
      if (making_->connected || shared_->given_up) return {};
      making_->made = true;
    }
    const std::string id = TRY(daemon.create(name, body));
    TRY(check_granted(launch, rank_, TRY(daemon.inspect(id))));
    {
      const std::lock_guard guard(shared_->mutex);
      if (shared_->given_up) return {};
    }
    return daemon.start(id);
  }

  std::shared_ptr<ContainerCrew::Shared> shared_;
  std::shared_ptr<Making> making_;
  const std::size_t rank_;
  const std::vector<FoundMount> mounts_;
  const std::string channel_;
};

class ContainerRank final : public RankBody {
 public:
  ContainerRank(std::shared_ptr<ContainerCrew::Shared> shared, std::size_t rank, const RunFolder& folder,
                const std::string& path, const Fd& lock)
      : shared_(std::move(shared)),
        rank_(rank),
        folder_(folder),
        path_(path),
        lock_(lock),
        making_(std::make_shared<Making>()) {}

  Result<void> begin() override {
    auto mounts = TRY(find_mounts(plan()));
    setup_ = TRY(file_of(setup_text(shared_->launch, rank_, mounts)));
    listener_ = TRY(listen_at(folder_, socket_name(rank_)));
    // Readable on a call from the container, or at the end of its making.
    wait_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    for (int fd : {listener_.get(), making_->finished.get()})
      if (!wait_ || ::epoll_ctl(wait_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return system_error("epoll", errno);
    begun_ = true;
    std::thread([maker = std::make_shared<Maker>(shared_, making_, rank_, std::move(mounts),
                                                 path_ + "/" + socket_name(rank_))] {
      maker->run();
    }).detach();
    return {};
  }

  int signal() const override { return channel_seen_ ? process_.get() : wait_.get(); }

  Result<void> attend() override {
    if (channel_seen_) return {};  // its process has ended: over() sees it
    TRY(accept());
    std::uint64_t drained;
    (void)!::read(making_->finished.get(), &drained, sizeof drained);
    const std::lock_guard guard(shared_->mutex);
    if (!making_->error || channel_seen_) return {};
    making_failed_ = true;
    return *making_->error;
  }

  void done() override {
    sample();
    ::send(channel(), &channel::kBye, 1, MSG_NOSIGNAL);
  }

  bool over() override {
    if (!begun_) return true;
    if (!channel_seen_) return killed_ || making_failed_;
    pollfd wait{process_.get(), POLLIN, 0};
    if (process_) return ::poll(&wait, 1, 0) == 1;
    return channel() < 0;
  }

  void kill() override {
    {
      const std::lock_guard guard(shared_->mutex);
      shared_->given_up = true;
      shared_->changed.notify_all();
    }
    killed_ = true;
    listener_.reset();  // a container that is still being started finds nobody, and ends
    if (!channel_seen_) return;
    sample();
    if (!process_ || ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0) != 0)
      close_channel();  // which its first program takes for our death
  }

  std::int64_t pid() const override { return pid_; }

  Account account() override {
    if (!sampled_ && channel_seen_) sample();
    if (sampled_ && account_.cpu_seconds > 0) return account_;
    // Its first program was killed, and the accounts went with it: all that is left is the daemon's word.
    if (channel_seen_ && !account_.out_of_memory)
      account_.out_of_memory = daemon_says(*shared_, rank_, "OOMKilled");
    return account_;
  }

  bool has_other_masters() const override { return true; }

  void clear() override {
    listener_.reset();
    if (!begun_) return;
    {
      std::unique_lock lock(shared_->mutex);
      if (!shared_->changed.wait_for(lock, kLastWord, [&] { return making_->over; })) return;
      if (!making_->made) return;
    }
    // Should the daemon be away, the engine removes it later.
    (void)shared_->daemon.remove(rank_name(shared_->launch, rank_)).ok();
  }

 private:
  const LaunchPlan& plan() const { return shared_->launch.plan; }

  Result<void> accept() {
    Fd call(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!call) return {};
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(call.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.pid > 0) {
      pid_ = who.pid;
      process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, who.pid, 0)));
      cgroup_ = Cgroup::of_process(who.pid);
    }
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return system_error("pipe", errno);
    output_ = Fd(ends[0]);
    const Fd theirs(ends[1]);
    ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
    // Or else nobody in the container could open /dev/stdout.
    (void)!::fchown(theirs.get(), static_cast<uid_t>(plan().uid), static_cast<gid_t>(plan().gid));
    const int fds[] = {setup_.get(), theirs.get(), lock_.get()};
    channel_ = std::move(call);
    channel_seen_ = true;
    listener_.reset();
    ::unlinkat(folder_.fd(), socket_name(rank_).c_str(), 0);
    if (!send_setup(channel(), fds)) close_channel();
    setup_.reset();
    const std::lock_guard guard(shared_->mutex);
    making_->connected = true;
    shared_->changed.notify_all();
    return {};
  }

  void sample() {
    if (sampled_) return;
    account_.cpu_seconds = cgroup_.cpu_seconds().value_or(0);
    account_.memory_peak_bytes = cgroup_.memory_peak();
    account_.out_of_memory = cgroup_.oom_kills() > 0;
    sampled_ = true;
  }

  const std::shared_ptr<ContainerCrew::Shared> shared_;
  const std::size_t rank_;
  const RunFolder& folder_;
  const std::string path_;
  const Fd& lock_;
  const std::shared_ptr<Making> making_;
  Fd listener_, setup_, wait_;
  Fd process_;  ///< of the first program
  std::int64_t pid_ = 0;
  Cgroup cgroup_;
  Account account_;
  bool begun_ = false, channel_seen_ = false, making_failed_ = false, killed_ = false, sampled_ = false;
};

}  // namespace

ContainerCrew::ContainerCrew(const LaunchRecord& launch, const RunFolder& folder, std::string path,
                             const Fd& lock)
    : launch_(launch),
      folder_(folder),
      path_(std::move(path)),
      lock_(lock),
      shared_(std::make_shared<Shared>(launch)) {}

ContainerCrew::~ContainerCrew() = default;

std::unique_ptr<RankBody> ContainerCrew::make(std::size_t rank) {
  return std::make_unique<ContainerRank>(shared_, rank, folder_, path_, lock_);
}

}  // namespace lathe::engines
