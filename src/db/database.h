#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "db/migrations.h"

namespace lathe::db {

/// What a column holds: NULL, a whole number, a number or a text. Booleans are 0 and 1; times are
/// milliseconds since 1970 (UTC); bytes are a string. Everything that a store passes as an argument converts
/// by itself; an empty optional is NULL.
class Value : public std::variant<std::monostate, std::int64_t, double, std::string> {
 public:
  // NOLINTBEGIN(google-explicit-constructor)
  Value() = default;
  Value(std::nullopt_t) {}
  template <std::integral T>
  Value(T value) : variant(static_cast<std::int64_t>(value)) {}
  Value(double value) : variant(value) {}
  Value(std::string value) : variant(std::move(value)) {}
  Value(std::string_view value) : variant(std::string(value)) {}
  Value(const char* value) : variant(std::string(value)) {}
  Value(Time value) : Value(value.time_since_epoch().count()) {}
  template <class T>
  Value(const std::optional<T>& value) : Value(value ? Value(*value) : Value()) {}
  // NOLINTEND(google-explicit-constructor)

  bool is_null() const { return index() == 0; }
};

/// The rows of one query, wholly in memory.
struct Rows {
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;

  bool empty() const { return rows.empty(); }
  std::size_t size() const { return rows.size(); }
  /// Index of a column; throws std::logic_error if the query does not have it.
  std::size_t column(std::string_view name) const;
  bool is_null(std::size_t row, std::size_t column) const;
  // These throw std::logic_error if the column holds something else.
  std::int64_t integer(std::size_t row, std::size_t column) const;  ///< NULL is 0
  double number(std::size_t row, std::size_t column) const;         ///< NULL is 0
  std::string text(std::size_t row, std::size_t column) const;      ///< NULL is ""; numbers are printed
};

/// A statement failed. Thrown inside a transaction, which it aborts, and turned into the Error of
/// Database::read or Database::write there: stores read straight through, without a check at every statement.
struct Failure {
  Error error;
};

/// One transaction. SQL is one text for every database: `$1`, `$2` … are the arguments, in any order and as
/// often as needed, `RETURNING` works. Statements are prepared once a connection and kept by their text:
/// values belong into arguments, never into the text. Valid only inside the function it is given to; used by
/// one thread.
class Transaction {
 public:
  virtual ~Transaction() = default;
  /// Runs one statement. Throws Failure: already_exists for a unique constraint, failed_precondition for a
  /// foreign key, storage_exhausted for a full disk, unavailable for a lost or locked database, internal
  /// (logged) for anything that is a bug, such as SQL that is wrong. Throws std::logic_error if the arguments
  /// do not fit the text.
  virtual Rows query(std::string_view sql, std::vector<Value> args = {}) = 0;
  /// Runs one statement and gives the number of rows it changed itself. Throws like query.
  virtual std::int64_t execute(std::string_view sql, std::vector<Value> args = {}) = 0;
};

/// Where everything that must survive is kept. Safe from any thread; calls block. Transactions do not nest:
/// read or write inside `work` is a bug, refused with std::logic_error.
class Database {
 public:
  virtual ~Database() = default;

  /// Runs `work(Transaction&) -> Result<T>` once, in a transaction that writes. When this returns without an
  /// error, the change is on the disk (it survives kill -9 and loss of power). Concurrent writes are grouped
  /// into one commit; `work` runs on the writer's thread, so it must not block on anything else. An Error
  /// from `work`, or a Failure thrown in it, undoes it alone; any other exception too, and becomes internal.
  /// If the commit itself fails (storage_exhausted, unavailable) nothing of `work` is applied.
  template <class Work>
  auto write(Work&& work) -> std::invoke_result_t<Work, Transaction&> {
    return run<std::invoke_result_t<Work, Transaction&>>([this](auto& body) { return run_write(body); },
                                                         std::forward<Work>(work));
  }

  /// Runs `work(Transaction&) -> Result<T>` on a snapshot, on the caller's thread, beside writers and other
  /// readers. It must not write.
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
  std::string path;         ///< the file; created if absent, mode 0600; its folder must exist
  std::size_t readers = 4;  ///< connections for reading, opened when first needed
  std::span<const Migration> migrations = embedded_migrations();
};

/// Opens SQLite with WAL and synchronous=FULL, one writer thread with group commit, and brings the schema up
/// to date. Fails (failed_precondition) if the file was written by a newer version of the schema, or if a
/// migration that was applied has changed since. One process at a time owns the file; destruction finishes
/// the writes that were begun.
Result<std::unique_ptr<Database>> open_sqlite(const SqliteOptions& options);

}  // namespace lathe::db
