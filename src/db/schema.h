#pragma once

#include <span>

#include "base/result.h"
#include "db/migrations.h"
#include "db/sqlite_connection.h"

namespace lathe::db {

/// Applies, in order and each in a transaction of its own, the migrations that are not yet recorded in
/// `schema_migrations`. failed_precondition if one that is recorded is unknown here (a newer version wrote
/// it) or was applied with another text.
Result<void> bring_up_to_date(SqliteConnection& connection, std::span<const Migration> migrations);

}  // namespace lathe::db
