#include "app/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <fstream>

namespace lathe::app {

namespace {

double open_files() {
  DIR* folder = ::opendir("/proc/self/fd");
  if (!folder) return 0;
  int count = -3;  // `.`, `..` and the folder itself
  while (::readdir(folder)) ++count;
  ::closedir(folder);
  return count;
}

double resident_bytes() {
  long pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

const double kStarted = static_cast<double>(std::time(nullptr));

}  // namespace

void collect_process_metrics(http::Exposition& out) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  out.gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes());
  out.counter("process_cpu_seconds_total", "User and system CPU time.", cpu_seconds());
  out.gauge("process_open_fds", "Open file descriptors.", open_files());
  out.gauge("process_max_fds", "The limit of file descriptors.", static_cast<double>(files.rlim_cur));
  out.gauge("process_start_time_seconds", "Start of the process since 1970.", kStarted);
  out.metric("lathe_build_info", "gauge", "Always 1; the version is a label.");
  out.sample(1, {{"version", LATHE_VERSION}});
}

}  // namespace lathe::app
