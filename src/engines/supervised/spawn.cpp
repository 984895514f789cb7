#include "engines/supervised/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include <cstdlib>

namespace lathe::engines {

namespace {

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (auto& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Result<pid_t> spawn_supervisor(std::vector<std::string> argv, const std::string& run_folder) {
  std::vector<std::string> env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"};
  if (const char* zone = std::getenv("TZ")) env.push_back(std::string("TZ=") + zone);

  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addchdir_np(&files, run_folder.c_str());
  ::posix_spawn_file_actions_addopen(&files, 1, "supervisor.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&files, 1, 2);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none, changed;
  ::sigemptyset(&none);
  ::sigemptyset(&changed);
  for (int signal : {SIGPIPE, SIGHUP, SIGINT, SIGTERM, SIGCHLD}) ::sigaddset(&changed, signal);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &changed);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int why =
      ::posix_spawn(&pid, argv[0].c_str(), &files, &attributes, pointers(argv).data(), pointers(env).data());
  ::posix_spawn_file_actions_destroy(&files);
  ::posix_spawnattr_destroy(&attributes);
  if (why != 0) return system_error("start " + argv[0], why);
  return pid;
}

}  // namespace lathe::engines
