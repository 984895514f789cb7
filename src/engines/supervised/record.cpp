#include "engines/supervised/record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

namespace lathe::engines {

namespace {

constexpr EndCause kCauses[] = {EndCause::exited,        EndCause::signaled, EndCause::out_of_memory,
                                EndCause::time_limit,    EndCause::stopped,  EndCause::sibling_failed,
                                EndCause::launch_failed, EndCause::lost};

struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

}  // namespace

void fields(Fields& f, ContainerLaunch& c) {
  f.field("socket", c.socket, {.max_length = 10'000});
  f.field("image", c.image, {.max_length = 10'000});
  f.field("first", c.first, {.max_length = 10'000});
  f.field("gpus", c.gpus);
}

void fields(Fields& f, LaunchRecord& r) {
  f.field("plan", r.plan);
  f.field("owner", r.owner);
  f.field("container", r.container);
  f.field("rules", r.rules);
  f.field("cgroups", r.cgroups);
  f.field("memoryByProcess", r.memory_by_process);
  f.field("pidsByProcess", r.pids_by_process);
}

std::string rank_name(const LaunchRecord& record, std::size_t rank) {
  return fmt::format("lathe-{}-{}-{}", record.owner, record.plan.run_id, rank);
}

Cgroup rank_cgroup(const LaunchRecord& record, std::size_t rank) {
  return CgroupTree(record.cgroups).group(rank_name(record, rank));
}

void fields(Fields& f, ClaimRecord& r) {
  f.field("pid", r.pid);
}

void fields(Fields& f, StartRecord& r) {
  f.field("pid", r.pid);
  f.field("at", r.at);
}

void fields(Fields& f, EndRecord& r) {
  f.field("order", r.order);
  std::string cause(name(r.end.cause));
  f.field("cause", cause);
  for (EndCause known : kCauses)
    if (name(known) == cause) r.end.cause = known;
  f.field("exitCode", r.end.exit_code);
  f.field("signal", r.end.signal);
  f.field("at", r.end.at);
  f.field("messageZh", r.end.message.zh, {.max_length = 10'000});
  f.field("messageEn", r.end.message.en, {.max_length = 10'000});
  f.field("cpuSeconds", r.end.cpu_seconds);
  f.field("memoryPeakBytes", r.end.memory_peak_bytes);
}

void fields(Fields& f, StopRecord& r) {
  f.field("graceMs", r.grace_ms);
}

std::string RunFolder::start_name(std::size_t rank) {
  return fmt::format("rank-{}.start.json", rank);
}
std::string RunFolder::end_name(std::size_t rank) {
  return fmt::format("rank-{}.end.json", rank);
}

Result<RunFolder> RunFolder::open(int parent, const std::string& name) {
  Fd fd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return not_found({"运行", "run"}, name);
    return system_error("open " + name, errno);
  }
  return RunFolder(std::move(fd));
}

void RunFolder::keep_room() const {
  constexpr off_t kBytes = 64 * 1024;
  const Fd file(::openat(fd(), kRoom, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file && ::posix_fallocate(file.get(), 0, kBytes) != 0) give_up_room();
}

bool RunFolder::give_up_room() const {
  return ::unlinkat(fd(), kRoom, 0) == 0;
}

bool RunFolder::has(const char* name) const {
  struct stat info {};
  return ::fstatat(fd(), name, &info, AT_SYMLINK_NOFOLLOW) == 0;
}

std::optional<Fd> RunFolder::lock() const {
  Fd file(::openat(fd(), kLock, O_RDWR | O_CLOEXEC));
  if (!file) return std::nullopt;
  auto wanted = whole_file(F_WRLCK);
  if (::fcntl(file.get(), F_OFD_SETLK, &wanted) != 0) return std::nullopt;
  return file;
}

bool RunFolder::locked() const {
  const Fd file(::openat(fd(), kLock, O_RDWR | O_CLOEXEC));
  if (!file) return false;
  auto wanted = whole_file(F_WRLCK);
  return ::fcntl(file.get(), F_OFD_GETLK, &wanted) == 0 && wanted.l_type != F_UNLCK;
}

}  // namespace lathe::engines
