#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <random>
#include <set>
#include <thread>

#include "base/fd.h"
#include "db/database.h"
#include "db/test_database.h"

// A child process writes and says over a pipe what was acknowledged; the parent kills it in the middle of
// that. The child is this program, told by its environment to run the one test that is disabled below.

namespace lathe::db {
namespace {

constexpr const char* kPathVariable = "LATHE_TEST_DURABILITY_PATH";
constexpr int kPipe = 3;
constexpr int kKills = 24;

// Two rows that belong together show whether a piece of work was ever half applied.
constexpr Migration kTables[] = {{1, "0001_pairs",
                                  "CREATE TABLE lefts (id BIGINT PRIMARY KEY);"
                                  "CREATE TABLE rights (id BIGINT PRIMARY KEY);"}};

Result<std::unique_ptr<Database>> open_pairs(const std::string& path) {
  return open_sqlite({.path = path, .migrations = kTables});
}

std::int64_t highest(Database& database) {
  return *database.read([](Transaction& tx) -> Result<std::int64_t> {
    return tx.query("SELECT max(id) FROM lefts").integer(0, 0);
  });
}

TEST(DISABLED_DurabilityChild, WritesUntilKilled) {
  const char* path = std::getenv(kPathVariable);
  ASSERT_NE(path, nullptr);
  auto opened = open_pairs(path);
  ASSERT_TRUE(opened.ok()) << opened.error().message.en;
  Database& database = **opened;
  std::atomic<std::int64_t> next = highest(database) + 1;
  const auto write_for_ever = [&] {
    while (true) {
      const std::int64_t id = next++;
      const auto written = database.write([&](Transaction& tx) -> Result<void> {
        tx.execute("INSERT INTO lefts (id) VALUES ($1)", {id});
        tx.execute("INSERT INTO rights (id) VALUES ($1)", {id});
        return {};
      });
      if (!written.ok()) std::abort();
      if (::write(kPipe, &id, sizeof id) != sizeof id) std::abort();  // atomic: shorter than PIPE_BUF
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 7; ++i) threads.emplace_back(write_for_ever);
  write_for_ever();
}

/// Starts the child above with the pipe's end `acknowledgements`.
pid_t start_child(const std::string& path, int acknowledgements) {
  std::string variable = std::string(kPathVariable) + "=" + path;
  std::array<const char*, 4> argv = {"lathe_tests", "--gtest_filter=DISABLED_DurabilityChild.*",
                                     "--gtest_also_run_disabled_tests", nullptr};
  std::array<const char*, 2> environment = {variable.c_str(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, acknowledgements, kPipe);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int status =
      posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, const_cast<char* const*>(argv.data()),
                  const_cast<char* const*>(environment.data()));
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(status, 0);
  return pid;
}

std::set<std::int64_t> ids_in(Database& database, const std::string& table) {
  return *database.read([&](Transaction& tx) -> Result<std::set<std::int64_t>> {
    const Rows rows = tx.query("SELECT id FROM " + table);
    std::set<std::int64_t> out;
    for (std::size_t i = 0; i < rows.size(); ++i) out.insert(rows.integer(i, 0));
    return out;
  });
}

TEST(Durability, EverythingAcknowledgedSurvivesAKill) {
  const TestFolder folder;
  const std::string path = folder.file("pairs.db");
  std::mt19937 random(std::random_device{}());
  std::set<std::int64_t> acknowledged;
  for (int round = 0; round < kKills; ++round) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    const Fd in(ends[0]);
    Fd out(ends[1]);
    const pid_t child = start_child(path, out.get());
    out.reset();
    // Killed after a random number of acknowledgements; the writers are then anywhere.
    const std::size_t enough = acknowledged.size() + 1 + random() % 100;
    bool killed = false;
    for (std::int64_t id = 0; ::read(in.get(), &id, sizeof id) == sizeof id;) {
      acknowledged.insert(id);
      if (!killed && acknowledged.size() >= enough) killed = ::kill(child, SIGKILL) == 0;
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
  }

  auto opened = open_pairs(path);
  ASSERT_TRUE(opened.ok()) << opened.error().message.en;
  const auto lefts = ids_in(**opened, "lefts"), rights = ids_in(**opened, "rights");
  EXPECT_EQ(lefts, rights);
  EXPECT_GE(acknowledged.size(), std::size_t{kKills});
  for (const std::int64_t id : acknowledged) ASSERT_TRUE(lefts.contains(id)) << id << " was lost";
  const auto intact = (*opened)->read(
      [](Transaction& tx) -> Result<std::string> { return tx.query("PRAGMA integrity_check").text(0, 0); });
  EXPECT_EQ(*intact, "ok");
}

}  // namespace
}  // namespace lathe::db
