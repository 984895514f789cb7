#include "app/data_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

namespace lathe::app {

namespace {

std::string holder_of(int lock) {
  std::array<char, 32> text{};
  const ssize_t size = ::pread(lock, text.data(), text.size(), 0);
  if (size <= 0) return "?";
  std::string pid(text.data(), static_cast<std::size_t>(size));
  while (!pid.empty() && pid.back() == '\n') pid.pop_back();
  return pid;
}

/// A server that was just killed may have left a child between fork and exec, which holds the lock for a
/// moment more.
bool lock_soon(int fd) {
  for (int i = 0; i < 100; ++i) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

}  // namespace

Result<DataDirectory> DataDirectory::open(const std::string& path) {
  if (path.empty())
    return invalid_field("data", {"请用 --data 指定数据目录", "say where the data shall be: --data DIR"});
  std::error_code error;
  const bool existed = std::filesystem::exists(path, error);
  if (!existed) {
    std::filesystem::create_directories(path, error);
    if (error) return system_error("create " + path, error.value());
    if (::chmod(path.c_str(), 0700) != 0) return system_error("chmod " + path, errno);
  }
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
  if (!real) return system_error("open " + path, errno);
  const std::string lock_path = std::string(real.get()) + "/lock";
  const int lock = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock < 0) return system_error("open " + lock_path, errno);
  if (!lock_soon(lock)) {
    const std::string holder = holder_of(lock);
    ::close(lock);
    return Error{Code::failed_precondition,
                 {"数据目录 " + path + " 正被另一个服务使用（进程 " + holder + "）",
                  "the data directory " + path + " is in use by another server (process " + holder + ")"}};
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(lock, 0) != 0 || ::pwrite(lock, pid.data(), pid.size(), 0) < 0) {
    const int why = errno;
    ::close(lock);
    return system_error("write " + lock_path, why);
  }
  return DataDirectory(real.get(), lock);
}

DataDirectory::DataDirectory(DataDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

DataDirectory::~DataDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace lathe::app
