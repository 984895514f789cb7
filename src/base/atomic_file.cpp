#include "base/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>

#include "base/directory.h"
#include "base/fd.h"

namespace lathe {

namespace {

/// Thread ids are unique among the living, so no two writers share a temporary file; one that a killed
/// process left is simply overwritten.
std::string temporary_name(const std::string& name) {
  return "." + name + "." + std::to_string(::gettid());
}

Result<void> write_temporary(int folder, const std::string& temporary, std::string_view bytes,
                             Durable durable, mode_t mode) {
  const Fd file(
      ::openat(folder, temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file) return system_error("open " + temporary, errno);
  TRY(write_all(file.get(), bytes));
  if (durable == Durable::yes && ::fdatasync(file.get()) != 0) return system_error("fdatasync", errno);
  return {};
}

}  // namespace

Result<void> replace_file(int folder, const std::string& name, std::string_view bytes, Durable durable,
                          mode_t mode) {
  const std::string temporary = temporary_name(name);
  auto written = write_temporary(folder, temporary, bytes, durable, mode);
  if (written.ok() && ::renameat(folder, temporary.c_str(), folder, name.c_str()) != 0)
    written = system_error("rename " + name, errno);
  if (!written.ok()) {
    ::unlinkat(folder, temporary.c_str(), 0);
    return written;
  }
  if (durable == Durable::yes && ::fsync(folder) != 0) return system_error("fsync", errno);
  return {};
}

Result<bool> create_file_once(int folder, const std::string& name, std::string_view bytes, Durable durable,
                              mode_t mode) {
  const std::string temporary = temporary_name(name);
  auto written = write_temporary(folder, temporary, bytes, durable, mode);
  if (!written.ok()) {
    ::unlinkat(folder, temporary.c_str(), 0);
    return std::move(written).error();
  }
  if (::renameat2(folder, temporary.c_str(), folder, name.c_str(), RENAME_NOREPLACE) != 0) {
    const int why = errno;
    ::unlinkat(folder, temporary.c_str(), 0);
    if (why == EEXIST) return false;
    return system_error("rename " + name, why);
  }
  if (durable == Durable::yes && ::fsync(folder) != 0) return system_error("fsync", errno);
  return true;
}

Result<std::string> read_whole_file(int folder, const std::string& name, std::size_t limit) {
  const Fd file(::openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) {
    if (errno == ENOENT) return not_found({"文件", "file"}, name);
    return system_error("open " + name, errno);
  }
  std::string out;
  char buffer[16384];
  while (true) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("read " + name, errno);
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
    if (out.size() > limit) return Error{Code::too_large, {"文件过大：" + name, "file too large: " + name}};
  }
}

}  // namespace lathe
