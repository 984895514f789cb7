#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "db/database.h"

namespace lathe::db {

/// How the database would run a query, one step a line, in the database's own words. For tests: in SQLite's,
/// `SCAN t` without an index reads a whole table, `SEARCH t USING INDEX i` does not, and `USE TEMP B-TREE FOR
/// ORDER BY` sorts every row that matches before the first is given.
std::string explain(Transaction& tx, std::string_view sql, std::vector<Value> args = {});

/// True if the plan neither reads a whole table without an index nor sorts.
bool uses_indexes_only(std::string_view plan);

}  // namespace lathe::db
