#include "db/sqlite_connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <stdexcept>
#include <system_error>

#include "base/fd.h"
#include "base/log.h"

namespace lathe::db {

namespace {

// Stores' texts are constants; only filters put together at run time make more than a few dozen.
constexpr std::size_t kMostStatements = 300;
// Some hundreds of small writes, and a few more pages than the log has when it is moved into the database.
constexpr off_t kReservedLogBytes = 20 << 20;

Error unavailable() {
  return {Code::unavailable,
          {"数据库暂时不可用，请稍后重试", "the database is unavailable; try again later"}};
}

Error no_space() {
  return {Code::storage_exhausted, {"磁盘空间不足，数据库无法写入", "no space left on the database's disk"}};
}

/// `code` is SQLite's extended code. Everything not listed is a bug or a broken file: its text is for the
/// log.
Error to_error(int code, int system_errno) {
  switch (code) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
      return {Code::already_exists, {"已存在相同的记录", "it exists already"}};
    case SQLITE_CONSTRAINT_FOREIGNKEY:
      return {Code::failed_precondition,
              {"引用的对象不存在，或者该对象仍被引用", "it refers to something absent, or is still in use"}};
    default:
      break;
  }
  // The index of the log is a mapped file that could not grow.
  if (code == SQLITE_IOERR_SHMSIZE) return no_space();
  switch (code & 0xff) {
    case SQLITE_FULL:
      return no_space();
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      if (system_errno == ENOSPC || system_errno == EDQUOT) return no_space();
      return unavailable();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
    case SQLITE_NOMEM:
      return unavailable();
    default:
      return {Code::internal, {"数据库内部错误", "internal database error"}};
  }
}

bool is_expected(Code code) {
  return code == Code::already_exists || code == Code::failed_precondition;
}

/// Leaves a statement as it was found, whatever happened while it ran.
class ResetAtEnd {
 public:
  explicit ResetAtEnd(sqlite3_stmt* handle) : handle_(handle) {}
  ResetAtEnd(const ResetAtEnd&) = delete;
  ResetAtEnd& operator=(const ResetAtEnd&) = delete;
  ~ResetAtEnd() { sqlite3_reset(handle_); }

 private:
  sqlite3_stmt* handle_;
};

Value column_value(sqlite3_stmt* handle, int column) {
  switch (sqlite3_column_type(handle, column)) {
    case SQLITE_NULL:
      return {};
    case SQLITE_INTEGER:
      return static_cast<std::int64_t>(sqlite3_column_int64(handle, column));
    case SQLITE_FLOAT:
      return sqlite3_column_double(handle, column);
    default: {
      // The text first: asking for its length alone may convert it.
      const void* bytes = sqlite3_column_blob(handle, column);
      const auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle, column));
      return bytes ? std::string(static_cast<const char*>(bytes), size) : std::string();
    }
  }
}

/// The file is made here: SQLite would make it readable for everyone, and its name would not be durable.
Result<void> create_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) {
    if (errno == EEXIST) return {};
    return system_error("open " + path, errno);
  }
  const auto slash = path.rfind('/');
  const std::string folder_path = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd folder(::open(folder_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::fsync(folder.get()) != 0) return system_error("fsync " + folder_path, errno);
  return {};
}

}  // namespace

Result<std::unique_ptr<SqliteConnection>> SqliteConnection::open(const std::string& path, Access access) {
  if (access == Access::write) TRY(create_file(path));
  // Nobody asks SQLite for its memory statistics, which cost every allocation a lock.
  static const int configured = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  (void)configured;
  sqlite3* handle = nullptr;
  const int status = sqlite3_open_v2(
      path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection(handle));
  if (status != SQLITE_OK) {
    const std::string why = handle ? sqlite3_errmsg(handle) : "out of memory";
    return Error{Code::unavailable,
                 {fmt::format("无法打开数据库 {}：{}", path, why),
                  fmt::format("cannot open the database {}: {}", path, why)}};
  }
  sqlite3_busy_timeout(handle, 5000);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  // Otherwise a misspelt column in double quotes is silently a string.
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DQS_DML, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DQS_DDL, 0, nullptr);
  try {
    connection->run_script("PRAGMA journal_mode = WAL");
    connection->run_script("PRAGMA synchronous = FULL");
    connection->run_script("PRAGMA foreign_keys = ON");
    connection->run_script("PRAGMA temp_store = MEMORY");
    connection->run_script(access == Access::write ? "PRAGMA cache_size = -8192" : "PRAGMA query_only = ON");
    // The log shrinks to this after a burst.
    connection->run_script("PRAGMA journal_size_limit = 67108864");
    const Rows mode = connection->query("PRAGMA journal_mode");
    if (mode.text(0, 0) != "wal")
      return Error{Code::failed_precondition,
                   {fmt::format("{} 所在的文件系统不支持 SQLite 的 WAL 模式", path),
                    fmt::format("{} is on a file system without SQLite's WAL mode", path)}};
  } catch (const Failure& failure) {
    return Error{failure.error.code,
                 {fmt::format("无法打开数据库 {}：{}", path, failure.error.message.zh),
                  fmt::format("cannot open the database {}: {}", path, failure.error.message.en)}};
  }
  if (access == Access::write) {
    // In place of SQLite's own checkpoints, which would run inside a commit: the writer answers first.
    sqlite3_wal_hook(
        handle,
        [](void* self, sqlite3*, const char*, int pages) {
          static_cast<SqliteConnection*>(self)->log_pages_ = pages;
          return SQLITE_OK;
        },
        connection.get());
  } else {
    sqlite3_wal_autocheckpoint(handle, 0);
  }
  return connection;
}

SqliteConnection::~SqliteConnection() {
  forget_statements();
  sqlite3_close(handle_);
}

void SqliteConnection::forget_statements() {
  for (auto& [text, statement] : statements_) sqlite3_finalize(statement.handle);
  statements_.clear();
}

void SqliteConnection::fail(std::string_view sql) {
  const int code = sqlite3_extended_errcode(handle_);
  Error error = to_error(code, sqlite3_system_errno(handle_));
  if (!is_expected(error.code))
    log::error("database: {} ({}, errno {}) in: {}", sqlite3_errmsg(handle_), code,
               sqlite3_system_errno(handle_), sql);
  throw Failure{std::move(error)};
}

SqliteConnection::Statement& SqliteConnection::prepared(std::string_view sql) {
  if (const auto found = statements_.find(sql); found != statements_.end()) return found->second;
  if (statements_.size() >= kMostStatements) forget_statements();

  sqlite3_stmt* handle = nullptr;
  const char* tail = nullptr;
  if (sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                         &handle, &tail) != SQLITE_OK)
    fail(sql);
  Statement statement{handle, {}, 0};
  const auto refuse = [&](std::string_view why) {
    sqlite3_finalize(handle);
    throw std::logic_error(fmt::format("{}: {}", why, sql));
  };
  if (!handle) refuse("no statement");
  if (sql.find_first_not_of(" \t\r\n;", static_cast<std::size_t>(tail - sql.data())) != sql.npos)
    refuse("more than one statement");
  for (int i = 1; i <= sqlite3_bind_parameter_count(handle); ++i) {
    const char* name = sqlite3_bind_parameter_name(handle, i);
    const std::string_view text = name ? name : "";
    std::size_t number = 0;
    if (text.size() < 2 || text[0] != '$' ||
        std::from_chars(text.data() + 1, text.data() + text.size(), number).ptr !=
            text.data() + text.size() ||
        number == 0)
      refuse("arguments are written $1, $2 ...");
    statement.slots.push_back(number - 1);
    statement.arguments = std::max(statement.arguments, number);
  }
  return statements_.emplace(sql, std::move(statement)).first->second;
}

SqliteConnection::Statement& SqliteConnection::bound(std::string_view sql, const std::vector<Value>& args) {
  Statement& statement = prepared(sql);
  if (statement.arguments != args.size())
    throw std::logic_error(
        fmt::format("{} arguments given for {}: {}", args.size(), statement.arguments, sql));
  for (std::size_t i = 0; i < statement.slots.size(); ++i) {
    const Value& value = args[statement.slots[i]];
    const int at = static_cast<int>(i) + 1;
    int status = SQLITE_OK;
    if (const auto* text = std::get_if<std::string>(&value)) {
      // Not copied: every argument is bound anew before a statement runs again.
      status =
          sqlite3_bind_text64(statement.handle, at, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      status = sqlite3_bind_int64(statement.handle, at, *integer);
    } else if (const auto* number = std::get_if<double>(&value)) {
      status = sqlite3_bind_double(statement.handle, at, *number);
    } else {
      status = sqlite3_bind_null(statement.handle, at);
    }
    if (status != SQLITE_OK) fail(sql);
  }
  return statement;
}

Rows SqliteConnection::query(std::string_view sql, std::vector<Value> args) {
  Statement& statement = bound(sql, args);
  const ResetAtEnd reset(statement.handle);
  Rows out;
  int status = sqlite3_step(statement.handle);
  // Only now: the first step prepares anew where the schema has changed.
  const int count = sqlite3_column_count(statement.handle);
  for (int i = 0; i < count; ++i) out.columns.emplace_back(sqlite3_column_name(statement.handle, i));
  for (; status == SQLITE_ROW; status = sqlite3_step(statement.handle)) {
    auto& row = out.rows.emplace_back();
    row.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) row.push_back(column_value(statement.handle, i));
  }
  if (status != SQLITE_DONE) fail(sql);
  return out;
}

std::int64_t SqliteConnection::execute(std::string_view sql, std::vector<Value> args) {
  Statement& statement = bound(sql, args);
  const ResetAtEnd reset(statement.handle);
  const std::int64_t before = sqlite3_total_changes64(handle_);
  int status = sqlite3_step(statement.handle);
  while (status == SQLITE_ROW) status = sqlite3_step(statement.handle);
  if (status != SQLITE_DONE) fail(sql);
  // sqlite3_changes keeps its count through statements that cannot change rows.
  return sqlite3_total_changes64(handle_) == before ? 0 : sqlite3_changes64(handle_);
}

void SqliteConnection::run_script(std::string_view sql) {
  while (!sql.empty()) {
    sqlite3_stmt* handle = nullptr;
    const char* tail = nullptr;
    if (sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &handle, &tail) != SQLITE_OK)
      fail(sql);
    const std::string_view statement = sql.substr(0, static_cast<std::size_t>(tail - sql.data()));
    sql.remove_prefix(statement.size());
    if (!handle) continue;  // a comment or space
    int status = sqlite3_step(handle);
    while (status == SQLITE_ROW) status = sqlite3_step(handle);
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owner(handle, sqlite3_finalize);
    if (status != SQLITE_DONE) fail(statement);
  }
}

bool SqliteConnection::in_transaction() const {
  return sqlite3_get_autocommit(handle_) == 0;
}

bool SqliteConnection::violates_deferred() const {
  int now = 0, highest = 0;
  sqlite3_db_status(handle_, SQLITE_DBSTATUS_DEFERRED_FKS, &now, &highest, 0);
  return now > 0;
}

void SqliteConnection::reserve_log(const std::string& path) {
  // The log is there from the first read on, and SQLite does not cut it below journal_size_limit.
  query("SELECT COUNT(*) FROM sqlite_master");
  const Fd log_file(::open((path + "-wal").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  // Its size stays: what lies behind the end is allocated, and is nothing to SQLite.
  if (!log_file || ::fallocate(log_file.get(), FALLOC_FL_KEEP_SIZE, 0, kReservedLogBytes) != 0)
    log::warning("no room is set aside for the database's log: {}", std::generic_category().message(errno));
}

void SqliteConnection::checkpoint() {
  int in_log = 0, moved = 0;
  const int status = sqlite3_wal_checkpoint_v2(handle_, nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved);
  // Not an error for anyone: what is in the log is safe there, and the next checkpoint tries again.
  if (status != SQLITE_OK && (status & 0xff) != SQLITE_BUSY)
    log::warning("database: checkpoint: {}", sqlite3_errmsg(handle_));
  log_pages_ = 0;
}

}  // namespace lathe::db
