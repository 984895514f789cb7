// Durable rows a second, by the number of clients that each write one row and wait for it; and, with no
// database in the way, what the disk's own fdatasync takes. Writes into the folder LATHE_BENCH_DIR, or else
// the current one, and removes what it wrote.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "base/ids.h"
#include "db/database.h"
#include "db/row.h"

namespace lathe {
namespace {

using Steady = std::chrono::steady_clock;

constexpr db::Migration kTable[] = {
    {1, "0001_jobs",
     "CREATE TABLE jobs (id TEXT PRIMARY KEY, user_id TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,"
     " created_at BIGINT NOT NULL, spec TEXT NOT NULL);"
     "CREATE INDEX jobs_user ON jobs (user_id, id)"}};

/// About as wide as a job.
struct JobRow {
  std::string id;
  std::string user_id;
  std::string name = "fine-tune-llama";
  std::string state = "queued";
  Time created_at{};
  std::vector<std::string> spec = {std::string(200, 'x')};
};
void fields(Fields& f, JobRow& row) {
  f.field("id", row.id);
  f.field("user_id", row.user_id);
  f.field("name", row.name);
  f.field("state", row.state);
  f.field("created_at", row.created_at);
  f.field("spec", row.spec);
}

double microseconds(Steady::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void measure_sync(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const std::string page(4096, 'x');
  std::vector<double> took;
  for (int i = 0; i < 500; ++i) {
    if (::pwrite(fd, page.data(), page.size(), i * 4096L) < 0) std::abort();
    const auto begin = Steady::now();
    ::fdatasync(fd);
    took.push_back(microseconds(Steady::now() - begin));
  }
  ::close(fd);
  std::filesystem::remove(path);
  std::nth_element(took.begin(), took.begin() + 250, took.end());
  fmt::print("fdatasync of one page: median {:.0f} us\n", took[250]);
}

void measure_writes(db::Database& database, IdSource& ids, const Clock& clock, int clients) {
  std::atomic<bool> stop = false;
  std::vector<std::vector<double>> took(static_cast<std::size_t>(clients));
  std::vector<std::thread> threads;
  const auto begin = Steady::now();
  for (auto& mine : took)
    threads.emplace_back([&] {
      while (!stop) {
        const auto from = Steady::now();
        const JobRow row{.id = ids.next(), .user_id = "7", .created_at = clock.now()};
        const auto written = database.write([&](db::Transaction& tx) -> Result<void> {
          db::insert(tx, "jobs", row);
          return {};
        });
        if (!written.ok()) std::abort();
        mine.push_back(microseconds(Steady::now() - from));
      }
    });
  std::this_thread::sleep_for(std::chrono::seconds(3));
  stop = true;
  for (auto& thread : threads) thread.join();
  const double seconds = microseconds(Steady::now() - begin) / 1e6;
  std::vector<double> all;
  for (auto& mine : took) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  fmt::print("{:3} clients: {:6.0f} durable rows/s, latency median {:.0f} us, p99 {:.0f} us\n", clients,
             static_cast<double>(all.size()) / seconds, all[all.size() / 2], all[all.size() * 99 / 100]);
}

int run() {
  const char* wanted = std::getenv("LATHE_BENCH_DIR");
  std::string folder = std::string(wanted ? wanted : ".") + "/db-bench-XXXXXX";
  if (!::mkdtemp(folder.data())) return 1;
  measure_sync(folder + "/sync");
  const SystemClock clock;
  Uuid7Source ids(clock);
  for (const int clients : {1, 8, 64}) {
    auto database = db::open_sqlite({.path = fmt::format("{}/{}.db", folder, clients), .migrations = kTable});
    if (!database.ok()) return 1;
    measure_writes(**database, ids, clock, clients);
  }
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace lathe

int main() {
  return lathe::run();
}
