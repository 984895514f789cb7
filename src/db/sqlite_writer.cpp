#include "db/sqlite_writer.h"

#include <pthread.h>

#include <exception>

#include "base/log.h"
#include "base/wake_flag.h"

namespace lathe::db {

namespace {

// Pages of 4 KiB. Longer logs cost reads and start-up, shorter ones more syncs of the database file.
constexpr int kCheckpointPages = 4000;

Error unexpected(std::string_view what) {
  log::error("database: a transaction was undone by an unexpected exception: {}", what);
  return {Code::internal, {"内部错误", "internal error"}};
}

}  // namespace

Result<void> run_body(const TransactionBody& body, Transaction& tx) {
  try {
    return body(tx);
  } catch (const Failure& failure) {
    return failure.error;
  } catch (const std::exception& exception) {
    return unexpected(exception.what());
  } catch (...) {
    return unexpected("not a std::exception");
  }
}

struct SqliteWriter::Task {
  const TransactionBody* body = nullptr;
  Result<void> result;
  WakeFlag done;
};

SqliteWriter::SqliteWriter(std::unique_ptr<SqliteConnection> connection)
    : connection_(std::move(connection)), thread_([this] { serve(); }) {}

SqliteWriter::~SqliteWriter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_one();
  thread_.join();
}

Result<void> SqliteWriter::run(const TransactionBody& body) {
  Task task{.body = &body};
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(&task);
    wake = std::exchange(idle_, false);
  }
  if (wake) arrived_.notify_one();
  task.done.wait();
  return std::move(task.result);
}

void SqliteWriter::serve() {
  pthread_setname_np(pthread_self(), "db-writer");
  while (wait_for_tasks()) {
    run_group();
    answer();
    if (connection_->log_pages() >= kCheckpointPages) connection_->checkpoint();
  }
}

bool SqliteWriter::wait_for_tasks() {
  std::unique_lock lock(mutex_);
  while (waiting_.empty()) {
    if (stopping_) return false;
    idle_ = true;
    arrived_.wait(lock);
  }
  idle_ = false;
  group_.swap(waiting_);
  return true;
}

void SqliteWriter::run_group() {
  std::size_t first = 0;  // where the transaction that is open now began
  for (std::size_t i = 0; i < group_.size(); ++i) {
    if (!connection_->in_transaction()) {
      first = i;
      try {
        connection_->execute("BEGIN IMMEDIATE");
      } catch (const Failure& failure) {
        give_up(i, group_.size(), failure.error);
        return;
      }
    }
    run_one(*group_[i], group_.size() == 1);
    // A full disk, for one, makes SQLite undo the whole transaction: what the earlier bodies did is gone too.
    if (!connection_->in_transaction()) {
      const Error lost = group_[i]->result.ok()
                             ? Error{Code::internal, {"事务已丢失", "the transaction was lost"}}
                             : group_[i]->result.error();
      give_up(first, i + 1, lost);
    }
  }
  if (connection_->in_transaction()) commit(first, group_.size());
}

void SqliteWriter::run_one(Task& task, bool alone) {
  try {
    if (!alone) connection_->execute("SAVEPOINT body");
    task.result = run_body(*task.body, *connection_);
    if (task.result.ok() && connection_->violates_deferred())
      task.result = Error{Code::failed_precondition, {"引用的对象不存在", "it refers to something absent"}};
    if (!connection_->in_transaction()) return;
    if (alone) {
      if (!task.result.ok()) connection_->execute("ROLLBACK");
      return;
    }
    if (!task.result.ok()) connection_->execute("ROLLBACK TO body");
    connection_->execute("RELEASE body");
  } catch (const Failure& failure) {
    task.result = failure.error;
    abandon_transaction();  // what is in it now nobody knows
  }
}

void SqliteWriter::commit(std::size_t first, std::size_t end) {
  try {
    connection_->execute("COMMIT");
  } catch (const Failure& failure) {
    abandon_transaction();
    give_up(first, end, failure.error);
  }
}

void SqliteWriter::give_up(std::size_t first, std::size_t end, const Error& error) {
  for (std::size_t i = first; i < end; ++i)
    if (group_[i]->result.ok()) group_[i]->result = error;
}

void SqliteWriter::abandon_transaction() {
  if (!connection_->in_transaction()) return;
  try {
    connection_->execute("ROLLBACK");
  } catch (const Failure&) {
    // Logged where it was thrown; the next BEGIN fails and says so to its callers.
  }
}

void SqliteWriter::answer() {
  for (Task* task : group_) task->done.set();
  group_.clear();
}

}  // namespace lathe::db
