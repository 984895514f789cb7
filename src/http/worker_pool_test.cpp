#include "http/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <thread>
#include <vector>

#include "base/wake_flag.h"

namespace lathe::http {
namespace {

using namespace std::chrono_literals;

struct Counted : WorkerPool::Job {
  std::atomic<int> ran = 0;
  WakeFlag done;
  void run_job() noexcept override {
    ++ran;
    done.set();
  }
};

TEST(WorkerPool, RunsEveryJobOnceThoughItsThreadsComeAndGo) {
  // With no patience at all, a thread leaves in the very moment in which it is picked.
  for (const auto idle : {0ms, 1ms, 1000ms}) {
    WorkerPool pool(4, 1000, idle);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller)
      callers.emplace_back([&] {
        for (int i = 0; i < 3000; ++i) {
          Counted job;
          ASSERT_TRUE(pool.submit(job));
          job.done.wait();
          EXPECT_EQ(job.ran, 1);
        }
      });
    for (auto& caller : callers) caller.join();
    EXPECT_LE(pool.workers(), 4U);
  }
}

TEST(WorkerPool, FinishesWhatItTookBeforeItStops) {
  for (int round = 0; round < 50; ++round) {
    WorkerPool pool(2, 1000, 1ms);
    std::deque<Counted> jobs(100);
    int taken = 0;
    for (auto& job : jobs)
      if (pool.submit(job)) ++taken;
    pool.stop();
    int ran = 0;
    for (const auto& job : jobs) ran += job.ran;
    EXPECT_EQ(ran, taken);
    Counted late;
    EXPECT_FALSE(pool.submit(late));
  }
}

TEST(WakeFlag, WaitsOnlyAsLongAsItIsTold) {
  WakeFlag flag;
  EXPECT_FALSE(flag.wait_for(2ms));
  std::thread other([&] { flag.set(); });
  flag.wait();
  other.join();
  EXPECT_TRUE(flag.wait_for(0ms));
  flag.clear();
  EXPECT_FALSE(flag.wait_for(0ms));
}

}  // namespace
}  // namespace lathe::http
