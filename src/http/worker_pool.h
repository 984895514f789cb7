#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

namespace lathe::http {

/// Threads that run blocking work: made when there is work and nobody free, ended when idle for a while.
class WorkerPool {
 public:
  class Job {
   public:
    virtual void run_job() noexcept = 0;

   protected:
    ~Job() = default;
  };

  WorkerPool(std::size_t max_workers, std::size_t max_queued, std::chrono::milliseconds idle_time);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// `job` must live until its run_job is left. False: too much is waiting already. Any thread.
  bool submit(Job& job);

  /// Runs what is queued, then waits for every worker to end. What is submitted afterwards is refused.
  void stop();

  std::size_t workers() const;
  std::size_t queued() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lathe::http
