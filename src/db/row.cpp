#include "db/row.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "base/json.h"

namespace lathe::db {

namespace bj = boost::json;

namespace {

// Unlike the codec of requests these two are exact: "" is not null, and no rule is checked, so that a row
// which was once written can be read after a rule has become stricter.

Json parse_column(std::string_view text, std::string_view column) {
  bj::parse_options options;
  options.max_depth = 1000;
  boost::system::error_code error;
  Json out = bj::parse(bj::string_view(text.data(), text.size()), error, {}, options);
  if (error) throw std::logic_error(fmt::format("column {} does not hold JSON: {}", column, error.message()));
  return out;
}

/// Fills a struct from a row. The fields of the struct are columns; inside of one, values come from its JSON.
class RowReader final : public Fields {
 public:
  RowReader(const Rows& rows, std::size_t row) : rows_(rows), row_(row) {}

  bool reading() const override { return true; }

  bool enter(std::string_view name, const Rule&, bool optional) override {
    if (depth_ == 0) {
      column_ = find(name);
      if (value().is_null() && !optional) return false;
    } else {
      const auto* object = json_.back()->if_object();
      const Json* member = object ? object->if_contains(name) : nullptr;
      if (!member || (member->is_null() && !optional)) return false;
      json_.push_back(member);
    }
    ++depth_;
    return true;
  }
  void leave() override {
    if (--depth_ == 0) {
      json_.clear();
    } else {
      json_.pop_back();
    }
  }
  bool enter_embedded() override { return json_.empty() ? !value().is_null() : !json_.back()->is_null(); }
  void leave_embedded() override {}

  void on_bool(bool& out, const Rule&) override {
    if (json_.empty()) {
      out = rows_.integer(row_, column_) != 0;
    } else if (const bool* got = json_.back()->if_bool()) {
      out = *got;
    } else {
      wrong_kind();
    }
  }
  void on_integer(std::int64_t& out, const Rule&) override {
    if (json_.empty()) {
      out = rows_.integer(row_, column_);
    } else if (const auto* got = json_.back()->if_int64()) {
      out = *got;
    } else {
      wrong_kind();
    }
  }
  void on_number(double& out, const Rule&) override {
    if (json_.empty()) {
      out = rows_.number(row_, column_);
    } else if (json_.back()->is_number()) {
      out = json_.back()->to_number<double>();
    } else {
      wrong_kind();
    }
  }
  void on_text(std::string& out, const Rule&) override {
    if (json_.empty()) {
      out = rows_.text(row_, column_);
    } else if (const auto* got = json_.back()->if_string()) {
      out.assign(got->data(), got->size());
    } else {
      wrong_kind();
    }
  }
  void on_time(Time& out, const Rule& rule) override {
    std::int64_t milliseconds = 0;
    on_integer(milliseconds, rule);
    out = Time{Duration{milliseconds}};
  }
  void on_json(Json& out, const Rule&) override {
    open_column();
    out = *json_.back();
  }

  void begin_object() override { open_column(); }
  void end_object() override {}
  std::size_t begin_list(std::size_t, const Rule&) override {
    open_column();
    const auto* array = json_.back()->if_array();
    if (!array) wrong_kind();
    return array->size();
  }
  bool enter_item(std::size_t index) override {
    json_.push_back(&json_.back()->get_array()[index]);
    return true;
  }
  void leave_item() override { json_.pop_back(); }
  void end_list() override {}
  bool on_optional(bool) override { return json_.empty() ? !value().is_null() : !json_.back()->is_null(); }

 private:
  const Value& value() const { return rows_.rows[row_][column_]; }
  /// Most queries give the columns in the order of the fields.
  std::size_t find(std::string_view name) {
    if (next_ >= rows_.columns.size() || rows_.columns[next_] != name) next_ = rows_.column(name);
    return next_++;
  }
  void open_column() {
    if (!json_.empty()) return;
    root_ = parse_column(rows_.text(row_, column_), rows_.columns[column_]);
    json_.push_back(&root_);
  }
  [[noreturn]] void wrong_kind() const {
    throw std::logic_error(fmt::format("column {} does not hold what its field wants: {}",
                                       rows_.columns[column_], bj::serialize(*json_.back())));
  }

  const Rows& rows_;
  const std::size_t row_;
  std::size_t column_ = 0, next_ = 0, depth_ = 0;
  Json root_;
  std::vector<const Json*> json_;  ///< from the column's root to the value visited; empty: the column itself
};

/// The opposite direction.
class RowWriter final : public Fields {
 public:
  Columns columns;

  bool reading() const override { return false; }

  bool enter(std::string_view name, const Rule&, bool) override {
    if (depth_ == 0) {
      columns.names.emplace_back(name);
      columns.values.emplace_back();
    } else {
      json_.push_back(&json_.back()->get_object()[name]);
    }
    ++depth_;
    return true;
  }
  void leave() override {
    if (--depth_ > 0) {
      json_.pop_back();
    } else if (!json_.empty()) {
      columns.values.back() = bj::serialize(root_);
      json_.clear();
    }
  }
  bool enter_embedded() override { return true; }
  void leave_embedded() override {}

  void on_bool(bool& value, const Rule&) override { put(value); }
  void on_integer(std::int64_t& value, const Rule&) override { put(value); }
  void on_number(double& value, const Rule&) override {
    if (std::isfinite(value)) put(value);  // else NULL: JSON and SQLite both have no word for it
  }
  void on_text(std::string& value, const Rule&) override { put(value); }
  void on_time(Time& value, const Rule&) override {
    put(static_cast<std::int64_t>(value.time_since_epoch().count()));
  }
  void on_json(Json& value, const Rule&) override { slot() = value; }

  void begin_object() override { slot().emplace_object(); }
  void end_object() override {}
  std::size_t begin_list(std::size_t size, const Rule&) override {
    slot().emplace_array().resize(size);
    return size;
  }
  bool enter_item(std::size_t index) override {
    json_.push_back(&json_.back()->get_array()[index]);
    return true;
  }
  void leave_item() override { json_.pop_back(); }
  void end_list() override {}
  bool on_optional(bool has_value) override { return has_value; }

 private:
  template <class T>
  void put(const T& value) {
    if (json_.empty()) {
      columns.values.back() = value;
    } else {
      *json_.back() = value;
    }
  }
  /// The JSON value visited; at a column, its root.
  Json& slot() {
    if (json_.empty()) {
      root_ = nullptr;
      json_.push_back(&root_);
    }
    return *json_.back();
  }

  std::size_t depth_ = 0;
  Json root_;
  std::vector<Json*> json_;
};

void append_quoted(std::string& sql, std::string_view name) {
  sql += '"';
  sql += name;
  sql += '"';
}

}  // namespace

void read_row(const Rows& rows, std::size_t row, void* target, Visit visit) {
  RowReader reader(rows, row);
  visit(reader, target);
}

Columns columns_of(const void* source, Visit visit) {
  RowWriter writer;
  visit(writer, const_cast<void*>(source));  // a visitor that writes never changes the struct
  return std::move(writer.columns);
}

std::int64_t insert_columns(Transaction& tx, std::string_view table, Columns columns) {
  std::string sql = "INSERT INTO ";
  append_quoted(sql, table);
  std::string values;
  for (std::size_t i = 0; i < columns.names.size(); ++i) {
    sql += i == 0 ? " (" : ", ";
    append_quoted(sql, columns.names[i]);
    values += i == 0 ? "$" : ", $";
    values += std::to_string(i + 1);
  }
  sql += ") VALUES (" + values + ")";
  return tx.execute(sql, std::move(columns.values));
}

std::int64_t update_columns(Transaction& tx, std::string_view table, Columns columns, std::string_view key) {
  std::string sql = "UPDATE ";
  append_quoted(sql, table);
  std::string where;
  const char* separator = " SET ";
  for (std::size_t i = 0; i < columns.names.size(); ++i) {
    std::string& part = columns.names[i] == key ? where : sql;
    part += columns.names[i] == key ? " WHERE " : std::exchange(separator, ", ");
    append_quoted(part, columns.names[i]);
    part += " = $" + std::to_string(i + 1);
  }
  if (where.empty()) throw std::logic_error(fmt::format("a row of {} has no field {}", table, key));
  return tx.execute(sql + where, std::move(columns.values));
}

}  // namespace lathe::db
