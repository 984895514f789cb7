#include "db/schema.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <map>

#include "base/clock.h"
#include "base/log.h"

namespace lathe::db {

namespace {

struct Applied {
  std::string name;
  std::string checksum;
};

std::string checksum_of(std::string_view sql) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(sql.data(), sql.size(), digest, &size, EVP_sha256(), nullptr);
  std::string out;
  for (unsigned int i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

std::map<std::int64_t, Applied> applied_migrations(SqliteConnection& connection) {
  connection.execute(
      "CREATE TABLE IF NOT EXISTS schema_migrations ("
      "version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)");
  const Rows rows = connection.query("SELECT version, name, checksum FROM schema_migrations");
  std::map<std::int64_t, Applied> out;
  for (std::size_t i = 0; i < rows.size(); ++i)
    out[rows.integer(i, 0)] = {.name = rows.text(i, 1), .checksum = rows.text(i, 2)};
  return out;
}

Error refusal(std::string zh, std::string en) {
  return {Code::failed_precondition, {std::move(zh), std::move(en)}};
}

Result<void> check(const std::map<std::int64_t, Applied>& applied, std::span<const Migration> migrations) {
  for (const auto& [version, row] : applied) {
    const Migration* known = nullptr;
    for (const Migration& migration : migrations)
      if (migration.version == version) known = &migration;
    if (!known)
      return refusal(
          fmt::format("数据库由更新的版本写入：此程序不认识迁移 {}，请使用更新的程序", row.name),
          fmt::format("the database was written by a newer version: this program does not know the migration "
                      "{}; use a newer program",
                      row.name));
    if (row.name != known->name || row.checksum != checksum_of(known->sql))
      return refusal(
          fmt::format("迁移 {} 在应用之后被改动（现为 {}）：请恢复其原文，改动应写成新的迁移", row.name,
                      known->name),
          fmt::format(
              "the migration {} was changed after it was applied (now {}): restore its text, and make "
              "the change a new migration",
              row.name, known->name));
  }
  return {};
}

void apply(SqliteConnection& connection, const Migration& migration) {
  connection.execute("BEGIN IMMEDIATE");
  connection.run_script(migration.sql);
  if (connection.violates_deferred()) throw Failure{refusal("违反外键约束", "a foreign key is violated")};
  connection.execute(
      "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
      {migration.version, migration.name, checksum_of(migration.sql), SystemClock().now()});
  connection.execute("COMMIT");
}

}  // namespace

Result<void> bring_up_to_date(SqliteConnection& connection, std::span<const Migration> migrations) {
  std::string_view at = "schema_migrations";
  try {
    const auto applied = applied_migrations(connection);
    TRY(check(applied, migrations));
    for (const Migration& migration : migrations) {
      if (applied.contains(migration.version)) continue;
      at = migration.name;
      apply(connection, migration);
    }
  } catch (const Failure& failure) {
    if (connection.in_transaction()) connection.execute("ROLLBACK");
    const Text& why = failure.error.message;
    return Error{failure.error.code,
                 {fmt::format("数据库迁移 {} 失败：{}", at, why.zh),
                  fmt::format("the database migration {} failed: {}", at, why.en)}};
  }
  return {};
}

}  // namespace lathe::db
