#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"
#include "db/sqlite_connection.h"

namespace lathe::db {

using TransactionBody = std::function<Result<void>(Transaction&)>;

/// Runs a body and turns whatever leaves it into a Result.
Result<void> run_body(const TransactionBody& body, Transaction& tx);

/// The one thread that writes. Callers hand in bodies and sleep; the thread runs all that wait in one
/// transaction, each within a savepoint, commits once, and wakes them.
class SqliteWriter {
 public:
  explicit SqliteWriter(std::unique_ptr<SqliteConnection> connection);
  /// Finishes what was handed in.
  ~SqliteWriter();
  SqliteWriter(const SqliteWriter&) = delete;
  SqliteWriter& operator=(const SqliteWriter&) = delete;

  /// Returns when the body's changes are durable, or undone. Not from inside a body.
  Result<void> run(const TransactionBody& body);

 private:
  struct Task;

  void serve();
  bool wait_for_tasks();
  void run_group();
  void run_one(Task& task, bool alone);
  void commit(std::size_t first, std::size_t end);
  void give_up(std::size_t first, std::size_t end, const Error& error);
  void abandon_transaction();
  void answer();

  std::unique_ptr<SqliteConnection> connection_;
  std::vector<Task*> group_;  ///< the thread's own

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Task*> waiting_;
  bool idle_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lathe::db
