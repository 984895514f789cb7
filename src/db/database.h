#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace lathe::db {

/// What a column holds. Booleans are 0 and 1; times are milliseconds since 1970 (UTC); bytes are a string.
using Value = std::variant<std::monostate, std::int64_t, double, std::string>;

/// The rows of one query, wholly in memory.
struct Rows {
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;

  bool empty() const { return rows.empty(); }
  std::size_t size() const { return rows.size(); }
  /// Index of a column; throws std::logic_error if the query does not have it.
  std::size_t column(std::string_view name) const;
  std::int64_t integer(std::size_t row, std::size_t column) const;  ///< NULL is 0
  std::string text(std::size_t row, std::size_t column) const;      ///< NULL is ""
};

/// A statement failed. Thrown inside a transaction, which it aborts, and turned into the Error of
/// Database::read or Database::write there: stores read straight through, without a check at every statement.
struct Failure {
  Error error;
};

/// One transaction. SQL is one text for every database: `$1`, `$2` … are the arguments, `RETURNING` works.
/// Valid only inside the function it is given to; used by one thread.
class Transaction {
 public:
  virtual ~Transaction() = default;
  /// Runs one statement. Throws Failure: already_exists for a unique constraint, failed_precondition for a
  /// foreign key, storage_exhausted for a full disk, unavailable for a lost or locked database.
  virtual Rows query(std::string_view sql, std::vector<Value> args = {}) = 0;
  /// Runs one statement and gives the number of rows it changed. Throws like query.
  virtual std::int64_t execute(std::string_view sql, std::vector<Value> args = {}) = 0;
};

/// Where everything that must survive is kept. Safe from any thread; calls block.
class Database {
 public:
  virtual ~Database() = default;

  /// Runs `work` in a transaction that writes. When this returns without an error, the change is on the disk
  /// (it survives kill -9 and loss of power). Concurrent writes are grouped into one commit; `work` runs on
  /// the writer's thread, so it must not block on anything else. An Error from `work` undoes it alone.
  template <class Work>
  auto write(Work&& work) -> std::invoke_result_t<Work, Transaction&> {
    return run<std::invoke_result_t<Work, Transaction&>>([this](auto& body) { return run_write(body); },
                                                         std::forward<Work>(work));
  }

  /// Runs `work` on a snapshot. It must not write.
  template <class Work>
  auto read(Work&& work) -> std::invoke_result_t<Work, Transaction&> {
    return run<std::invoke_result_t<Work, Transaction&>>([this](auto& body) { return run_read(body); },
                                                         std::forward<Work>(work));
  }

 protected:
  using Body = std::function<Result<void>(Transaction&)>;
  virtual Result<void> run_write(const Body& body) = 0;
  virtual Result<void> run_read(const Body& body) = 0;

 private:
  template <class R, class Runner, class Work>
  R run(Runner runner, Work&& work) {
    std::optional<R> out;
    Body body = [&](Transaction& tx) -> Result<void> {
      out.emplace(work(tx));
      if (!out->ok()) return out->error();
      return {};
    };
    Result<void> committed = runner(body);
    if (!committed.ok()) return std::move(committed).error();
    return std::move(*out);
  }
};

struct SqliteOptions {
  std::string path;         ///< the file; created if absent, mode 0600
  std::size_t readers = 4;  ///< connections for reading, opened when first needed
};

/// Opens SQLite with WAL and synchronous=FULL, one writer thread with group commit, and brings the schema up
/// to date. Fails if the file was written by a newer version of the schema.
Result<std::unique_ptr<Database>> open_sqlite(const SqliteOptions& options);

}  // namespace lathe::db
