#pragma once

#include <string_view>
#include <vector>

#include "base/fields.h"
#include "db/database.h"

/// Described structs as database rows: the names in `fields(Fields&, T&)` are the columns. Scalars, times and
/// optionals are columns of their own; a nested struct, a list or a Json is one column of JSON text.
namespace lathe::db {

// Used by the templates below.
using Visit = void (*)(Fields&, void*);
void read_row(const Rows& rows, std::size_t row, void* target, Visit visit);
struct Columns {
  std::vector<std::string> names;
  std::vector<Value> values;
};
Columns columns_of(const void* source, Visit visit);
std::int64_t insert_columns(Transaction& tx, std::string_view table, Columns columns);
std::int64_t update_columns(Transaction& tx, std::string_view table, Columns columns, std::string_view key);

template <class T>
void visit_as(Fields& f, void* p) {
  fields(f, *static_cast<T*>(p));
}

/// Runs a query and reads every row into a T. Columns that T does not have are ignored; a column that T has
/// and the query lacks is a bug (std::logic_error).
template <class T>
std::vector<T> select(Transaction& tx, std::string_view sql, std::vector<Value> args = {}) {
  const Rows rows = tx.query(sql, std::move(args));
  std::vector<T> out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) read_row(rows, i, &out[i], visit_as<T>);
  return out;
}

template <class T>
std::optional<T> select_one(Transaction& tx, std::string_view sql, std::vector<Value> args = {}) {
  auto all = select<T>(tx, sql, std::move(args));
  if (all.empty()) return std::nullopt;
  return std::move(all.front());
}

/// INSERT of every field.
template <class T>
void insert(Transaction& tx, std::string_view table, const T& row) {
  insert_columns(tx, table, columns_of(&row, visit_as<T>));
}

/// UPDATE of every field but `key`, where `key` is the row's; gives the number of rows changed.
template <class T>
std::int64_t update(Transaction& tx, std::string_view table, const T& row, std::string_view key = "id") {
  return update_columns(tx, table, columns_of(&row, visit_as<T>), key);
}

}  // namespace lathe::db
