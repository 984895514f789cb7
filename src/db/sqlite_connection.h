#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "db/database.h"

struct sqlite3;
struct sqlite3_stmt;

namespace lathe::db {

/// One connection to an SQLite file, with the statements it has prepared. Used by one thread at a time. As a
/// Transaction it is whatever transaction is open on it.
class SqliteConnection final : public Transaction {
 public:
  enum class Access {
    write,  ///< creates the file where absent
    read,   ///< statements that write fail
  };
  static Result<std::unique_ptr<SqliteConnection>> open(const std::string& path, Access access);
  ~SqliteConnection() override;
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  Rows query(std::string_view sql, std::vector<Value> args = {}) override;
  std::int64_t execute(std::string_view sql, std::vector<Value> args = {}) override;
  /// Runs every statement of a script, without arguments. Throws Failure, with what ran before it left done.
  void run_script(std::string_view sql);

  /// SQLite itself gives a transaction up after some errors: then this is false although nobody ended it.
  bool in_transaction() const;
  /// A constraint that is only checked at the commit is violated now.
  bool violates_deferred() const;
  /// Pages in the write-ahead log as of this connection's last commit.
  int log_pages() const { return log_pages_; }
  /// Moves what is in the write-ahead log into the database file, as far as no reader needs it.
  void checkpoint();
  /// Sets room aside on the disk for the log, which is written over and over: what must be written down while
  /// the disk is full (a job has ended, a file is deleted) then still can be. Without room now, a warning.
  void reserve_log(const std::string& path);

 private:
  /// A prepared statement; `slots[i]` is the argument that belongs to SQLite's parameter i + 1.
  struct Statement {
    sqlite3_stmt* handle = nullptr;
    std::vector<std::size_t> slots;
    std::size_t arguments = 0;
  };
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  explicit SqliteConnection(sqlite3* handle) : handle_(handle) {}
  Statement& prepared(std::string_view sql);
  Statement& bound(std::string_view sql, const std::vector<Value>& args);
  [[noreturn]] void fail(std::string_view sql);
  void forget_statements();

  sqlite3* handle_;
  int log_pages_ = 0;
  std::unordered_map<std::string, Statement, TextHash, std::equal_to<>> statements_;
};

}  // namespace lathe::db
