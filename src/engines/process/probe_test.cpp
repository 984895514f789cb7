#include "engines/process/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/fd.h"
#include "db/test_database.h"

namespace lathe::engines {
namespace {

using ::testing::HasSubstr;

/// What the probe says in a process of its own, after `prepare`; "usable" where nothing is in the way.
std::string probe_after(const std::function<bool()>& prepare) {
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  Fd ours(ends[0]), theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::string said = "cannot prepare";
    if (prepare()) {
      const auto probed = probe_namespaces();
      said = probed.ok() ? "usable" : probed.error().message.en + "\n" + probed.error().message.zh;
    }
    (void)!::write(theirs.get(), said.data(), said.size());
    ::_exit(0);
  }
  theirs = Fd();
  std::string said(4096, '\0');
  const ssize_t size = ::read(ours.get(), said.data(), said.size());
  said.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  ::waitpid(pid, nullptr, 0);
  return said;
}

bool enter(const char* folder, unsigned long propagation, bool bind) {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("", "/", nullptr, MS_REC | propagation, nullptr) == 0 &&
         (!bind || ::mount(folder, folder, nullptr, MS_BIND | MS_REC, nullptr) == 0) &&
         ::chroot(folder) == 0 && ::chdir("/") == 0;
}

TEST(NamespaceProbe, TellsAChrootInWhichNoJobCanHaveARootOfItsOwn) {
  if (::geteuid() != 0 || !probe_namespaces().ok()) GTEST_SKIP();
  const db::TestFolder folder;
  const std::string root = folder.file("");
  const std::string plain = probe_after([&] { return enter(root.c_str(), MS_PRIVATE, false); });
  EXPECT_THAT(plain, HasSubstr("make mounts private: Invalid argument"));
  EXPECT_THAT(plain, HasSubstr("as in a plain chroot"));
  EXPECT_THAT(plain, HasSubstr("普通的 chroot"));
  // The mount in which the folder lies passes on what is mounted there.
  EXPECT_THAT(probe_after([&] { return enter(root.c_str(), MS_SHARED, true); }),
              HasSubstr("pivot_root: Invalid argument"));
  // What the two say is to be done.
  EXPECT_EQ(probe_after([&] { return enter(root.c_str(), MS_PRIVATE, true); }), "usable");
}

}  // namespace
}  // namespace lathe::engines
