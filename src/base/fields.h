#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <boost/json/fwd.hpp>

#include "base/clock.h"

namespace lathe {

template <class T>
inline constexpr bool kIsOptional = false;
template <class T>
inline constexpr bool kIsOptional<std::optional<T>> = true;
template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;

/// What a text may consist of. Every form refuses NUL and invalid UTF-8.
enum class Form {
  any,       ///< anything else: descriptions, commands, values
  line,      ///< no control characters
  name,      ///< letters and digits of any script, space and `._-/:@+()`: nothing a shell would act upon
  path,      ///< a path below some root: no control characters, no `..`, not over 4096 bytes
  id,        ///< letters, digits, `_`, `-`, `.`
  variable,  ///< [A-Za-z_][A-Za-z0-9_]*: an environment variable
  option,    ///< [A-Za-z_][A-Za-z0-9_.-]*: a hyper-parameter
};

/// What a field may hold. Checked whenever a request is read, and shown in the OpenAPI document.
struct Rule {
  std::string_view doc = {};
  bool required = false;  ///< absent, null and "" are then errors
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
  std::size_t max_length = 255;  ///< of a string, in code points
  std::size_t max_items = 1000;  ///< of a list
  std::string_view one_of = {};  ///< "a|b|c": the only values allowed; "" is then absent too
  Form form = Form::any;
};

/// Visits the fields of a described struct: one description reads requests, writes answers, maps database
/// rows and makes the OpenAPI document. A struct is described by a function found beside it:
///
///     void fields(Fields& f, Point& p) { f.field("x", p.x, {.doc = "...", .required = true}); ... }
///
/// Members may be: bool, integers, double, std::string, Time, Json (anything), described structs, and
/// std::optional and std::vector of these. Scalars are read leniently ("3" is 3, "true" is true, and for an
/// optional or defaulted member null, "" and absent are the same) and written strictly.
/// A visitor is used by one thread and lives for one visit.
class Fields {
 public:
  virtual ~Fields() = default;

  template <class T>
  void field(std::string_view name, T& member, const Rule& rule = {}) {
    if (!enter(name, rule, kIsOptional<T>)) return;
    visit(member, rule);
    leave();
  }

  /// A member that travels as a string which itself is JSON: `envs`, `volumes`, ... "" and "null" mean none.
  template <class T>
  void embedded(std::string_view name, T& member, const Rule& rule = {}) {
    if (!enter(name, rule, true)) return;
    if (enter_embedded()) {
      visit(member, rule);
      leave_embedded();
    }
    leave();
  }

  /// A field that a described struct's reader refuses for a reason no Rule can say. Ignored by other
  /// visitors.
  virtual void refuse(std::string_view name, Text reason);
  /// True while values flow into the struct, false while they flow out of it.
  virtual bool reading() const = 0;

  // What a visitor implements. Not called by descriptions.

  /// Steps into the field `name`; false: there is nothing to visit.
  virtual bool enter(std::string_view name, const Rule& rule, bool optional) = 0;
  virtual void leave() = 0;
  virtual bool enter_embedded() = 0;
  virtual void leave_embedded() = 0;
  virtual void on_bool(bool& value, const Rule& rule) = 0;
  virtual void on_integer(std::int64_t& value, const Rule& rule) = 0;
  virtual void on_number(double& value, const Rule& rule) = 0;
  virtual void on_text(std::string& value, const Rule& rule) = 0;
  virtual void on_time(Time& value, const Rule& rule) = 0;
  virtual void on_json(boost::json::value& value, const Rule& rule) = 0;
  virtual void begin_object() = 0;
  virtual void end_object() = 0;
  /// `size` elements flow out, or the returned number of elements flows in.
  virtual std::size_t begin_list(std::size_t size, const Rule& rule) = 0;
  virtual bool enter_item(std::size_t index) = 0;
  virtual void leave_item() = 0;
  virtual void end_list() = 0;
  /// An optional: does it have a value (out), or should it get one (in)?
  virtual bool on_optional(bool has_value) = 0;

  template <class T>
  void visit(T& value, const Rule& rule) {
    if constexpr (std::is_same_v<T, bool>) {
      on_bool(value, rule);
    } else if constexpr (std::integral<T>) {
      Rule bounded = rule;
      bounded.min = std::max(rule.min, static_cast<double>(std::numeric_limits<T>::lowest()));
      bounded.max = std::min(rule.max, static_cast<double>(std::numeric_limits<T>::max()));
      auto wide = static_cast<std::int64_t>(value);
      on_integer(wide, bounded);
      value = static_cast<T>(wide);
    } else if constexpr (std::floating_point<T>) {
      on_number(value, rule);
    } else if constexpr (std::is_same_v<T, std::string>) {
      on_text(value, rule);
    } else if constexpr (std::is_same_v<T, Time>) {
      on_time(value, rule);
    } else if constexpr (std::is_same_v<T, boost::json::value>) {
      on_json(value, rule);
    } else if constexpr (kIsOptional<T>) {
      visit_optional(value, rule);
    } else if constexpr (kIsVector<T>) {
      visit_list(value, rule);
    } else {
      begin_object();
      fields(*this, value);
      end_object();
    }
  }

 private:
  template <class T>
  void visit_optional(std::optional<T>& value, const Rule& rule) {
    if (!on_optional(value.has_value())) {
      if (reading()) value.reset();
      return;
    }
    if (!value) value.emplace();
    visit(*value, rule);
  }

  template <class T>
  void visit_list(std::vector<T>& list, const Rule& rule) {
    const std::size_t size = begin_list(list.size(), rule);
    if (reading()) list.assign(size, T{});
    T sample{};  // gives the schema visitor something to look at in an empty list
    for (std::size_t i = 0; i < size; ++i) {
      if (!enter_item(i)) continue;
      visit(i < list.size() ? list[i] : sample, rule);
      leave_item();
    }
    end_list();
  }
};

/// The struct without fields: no parameters, no payload.
struct Nothing {};
inline void fields(Fields&, Nothing&) {}

}  // namespace lathe
