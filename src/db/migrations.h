#pragma once

#include <span>
#include <string_view>

namespace lathe::db {

/// One step of the schema's history: `src/db/migrations/NNNN_name.sql`. Once released it never changes.
struct Migration {
  int version = 0;        ///< NNNN
  std::string_view name;  ///< `NNNN_name`
  std::string_view sql;   ///< any number of statements
};

/// What this binary was built with, by ascending version. Lives forever.
std::span<const Migration> embedded_migrations();

}  // namespace lathe::db
