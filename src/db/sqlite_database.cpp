#include <condition_variable>
#include <mutex>
#include <stdexcept>

#include "db/database.h"
#include "db/schema.h"
#include "db/sqlite_connection.h"
#include "db/sqlite_writer.h"

namespace lathe::db {

namespace {

/// The database in whose transaction this thread is. A read or write from inside one could wait forever for
/// the connection that the thread itself holds.
thread_local const void* inside = nullptr;

class Inside {
 public:
  explicit Inside(const void* database) : before_(std::exchange(inside, database)) {}
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  ~Inside() { inside = before_; }

 private:
  const void* before_;
};

/// Connections for reading. Each is lent to one thread at a time; who finds none waits.
class ReaderPool {
 public:
  ReaderPool(std::string path, std::size_t limit) : path_(std::move(path)), limit_(limit) {}

  Result<std::unique_ptr<SqliteConnection>> take() {
    {
      std::unique_lock lock(mutex_);
      returned_.wait(lock, [&] { return !idle_.empty() || open_ < limit_; });
      if (!idle_.empty()) {
        auto connection = std::move(idle_.back());
        idle_.pop_back();
        return connection;
      }
      ++open_;
    }
    auto connection = SqliteConnection::open(path_, SqliteConnection::Access::read);
    if (!connection.ok()) give_back(nullptr);
    return connection;
  }

  /// nullptr: the connection is gone.
  void give_back(std::unique_ptr<SqliteConnection> connection) {
    {
      const std::lock_guard lock(mutex_);
      if (connection) {
        idle_.push_back(std::move(connection));
      } else {
        --open_;
      }
    }
    returned_.notify_one();
  }

 private:
  const std::string path_;
  const std::size_t limit_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<SqliteConnection>> idle_;
  std::size_t open_ = 0;
};

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(std::unique_ptr<SqliteConnection> writer, const SqliteOptions& options)
      : readers_(options.path, std::max<std::size_t>(options.readers, 1)), writer_(std::move(writer)) {}

 protected:
  Result<void> run_write(const Body& body) override {
    refuse_nesting();
    const Body marked = [&](Transaction& tx) {
      const Inside mark(this);
      return body(tx);
    };
    return writer_.run(marked);
  }

  Result<void> run_read(const Body& body) override {
    refuse_nesting();
    auto connection = TRY(readers_.take());
    const Inside mark(this);
    Result<void> result = run_body(
        [&](Transaction& tx) {
          connection->execute("BEGIN");
          return body(tx);
        },
        *connection);
    if (connection->in_transaction()) {
      // A connection that cannot even end a read is not used again.
      if (!run_body([](Transaction& tx) { return tx.execute("ROLLBACK"), Result<void>(); }, *connection).ok())
        connection.reset();
    }
    readers_.give_back(std::move(connection));
    return result;
  }

 private:
  void refuse_nesting() const {
    if (inside == this) throw std::logic_error("a transaction was begun inside a transaction");
  }

  ReaderPool readers_;
  SqliteWriter writer_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_sqlite(const SqliteOptions& options) {
  auto connection = TRY(SqliteConnection::open(options.path, SqliteConnection::Access::write));
  TRY(bring_up_to_date(*connection, options.migrations));
  connection->reserve_log(options.path);
  return std::unique_ptr<Database>(std::make_unique<SqliteDatabase>(std::move(connection), options));
}

}  // namespace lathe::db
