#include "db/database.h"

#include <fmt/format.h>

#include <stdexcept>

namespace lathe::db {

namespace {

[[noreturn]] void wrong_kind(const Rows& rows, std::size_t column, std::string_view wanted) {
  throw std::logic_error(fmt::format("column {} does not hold {}", rows.columns.at(column), wanted));
}

}  // namespace

std::size_t Rows::column(std::string_view name) const {
  for (std::size_t i = 0; i < columns.size(); ++i)
    if (columns[i] == name) return i;
  throw std::logic_error(fmt::format("the query has no column {}", name));
}

bool Rows::is_null(std::size_t row, std::size_t column) const {
  return rows.at(row).at(column).is_null();
}

std::int64_t Rows::integer(std::size_t row, std::size_t column) const {
  const Value& value = rows.at(row).at(column);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
  if (value.is_null()) return 0;
  wrong_kind(*this, column, "a whole number");
}

double Rows::number(std::size_t row, std::size_t column) const {
  const Value& value = rows.at(row).at(column);
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  if (value.is_null()) return 0;
  wrong_kind(*this, column, "a number");
}

std::string Rows::text(std::size_t row, std::size_t column) const {
  const Value& value = rows.at(row).at(column);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  return {};
}

}  // namespace lathe::db
