#include "base/json.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <memory>

#include "base/text_form.h"

namespace lathe::json {

namespace bj = boost::json;

namespace {

/// The path of the field being read, e.g. `resource[0].cpuNumber`.
class Path {
 public:
  void push_name(std::string_view name) {
    ends_.push_back(text_.size());
    if (!text_.empty()) text_ += '.';
    text_ += name;
  }
  void push_index(std::size_t index) {
    ends_.push_back(text_.size());
    text_ += fmt::format("[{}]", index);
  }
  void pop() {
    text_.resize(ends_.back());
    ends_.pop_back();
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::vector<std::size_t> ends_;
};

std::string list_choices(std::string_view one_of) {
  std::string out;
  for (char c : one_of) out += c == '|' ? std::string(", ") : std::string(1, c);
  return out;
}

bool is_choice(std::string_view one_of, std::string_view value) {
  while (true) {
    const auto bar = one_of.find('|');
    if (one_of.substr(0, bar) == value) return true;
    if (bar == std::string_view::npos) return false;
    one_of.remove_prefix(bar + 1);
  }
}

Text range_text(const Rule& rule, const char* zh, const char* en) {
  const bool low = rule.min > -9e15, high = rule.max < 9e15;
  if (low && high)
    return {fmt::format("应为 {:.12g} 到 {:.12g} 之间的{}", rule.min, rule.max, zh),
            fmt::format("must be {} from {:.12g} to {:.12g}", en, rule.min, rule.max)};
  if (low)
    return {fmt::format("应为不小于 {:.12g} 的{}", rule.min, zh),
            fmt::format("must be {} of at least {:.12g}", en, rule.min)};
  return {fmt::format("应为{}", zh), fmt::format("must be {}", en)};
}

template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number out{};
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

class Reader final : public Fields {
 public:
  explicit Reader(const Json& root) { values_.push_back(&root); }
  std::vector<Violation> violations;

  bool reading() const override { return true; }

  bool enter(std::string_view name, const Rule& rule, bool) override {
    const auto* object = values_.back()->if_object();
    const Json* value = object ? object->if_contains(name) : nullptr;
    const bool absent = !value || value->is_null() || (value->is_string() && value->get_string().empty());
    if (absent) {
      if (rule.required) add(name, {"不能为空", "is required"});
      return false;
    }
    path_.push_name(name);
    values_.push_back(value);
    return true;
  }
  void leave() override {
    values_.pop_back();
    path_.pop();
  }

  bool enter_embedded() override {
    const auto* text = values_.back()->if_string();
    if (!text) return !values_.back()->is_null() && adopt(*values_.back());  // lenient: the JSON itself
    const std::string_view body = *text;
    if (body.empty() || body == "null") return false;
    auto parsed = parse(body);
    if (!parsed.ok()) {
      add_here({"不是合法的 JSON 字符串", "must be a string that holds JSON"});
      return false;
    }
    return adopt(std::move(*parsed));
  }
  void leave_embedded() override { values_.pop_back(); }

  void on_bool(bool& value, const Rule&) override {
    const Json& json = *values_.back();
    if (json.is_bool()) {
      value = json.get_bool();
    } else if (json.is_string() && (json.get_string() == "true" || json.get_string() == "1")) {
      value = true;
    } else if (json.is_string() && (json.get_string() == "false" || json.get_string() == "0")) {
      value = false;
    } else if (json.is_int64() && (json.get_int64() == 0 || json.get_int64() == 1)) {
      value = json.get_int64() == 1;
    } else if (!is_empty(json)) {
      add_here({"应为 true 或 false", "must be true or false"});
    }
  }

  void on_integer(std::int64_t& value, const Rule& rule) override {
    const Json& json = *values_.back();
    if (is_empty(json)) return;
    std::optional<std::int64_t> got;
    if (json.is_int64()) {
      got = json.get_int64();
    } else if (json.is_double() && json.get_double() == std::floor(json.get_double()) &&
               std::abs(json.get_double()) < 9e15) {
      got = static_cast<std::int64_t>(json.get_double());
    } else if (json.is_string()) {
      got = number_in<std::int64_t>(json.get_string());
    }
    if (!got || static_cast<double>(*got) < rule.min || static_cast<double>(*got) > rule.max) {
      add_here(range_text(rule, "整数", "a whole number"));
      return;
    }
    if (!rule.one_of.empty() && !is_choice(rule.one_of, std::to_string(*got))) return refuse_choice(rule);
    value = *got;
  }

  void on_number(double& value, const Rule& rule) override {
    const Json& json = *values_.back();
    if (is_empty(json)) return;
    std::optional<double> got;
    if (json.is_number()) got = json.to_number<double>();
    if (json.is_string()) got = number_in<double>(json.get_string());
    if (!got || !std::isfinite(*got) || *got < rule.min || *got > rule.max) {
      add_here(range_text(rule, "数字", "a number"));
      return;
    }
    value = *got;
  }

  void on_text(std::string& value, const Rule& rule) override {
    const Json& json = *values_.back();
    std::string got;
    if (json.is_string()) {
      got = std::string(json.get_string());
    } else if (json.is_int64() || json.is_uint64() || json.is_double() || json.is_bool()) {
      got = bj::serialize(json);
    } else if (json.is_null()) {
      return;
    } else {
      add_here({"应为字符串", "must be a string"});
      return;
    }
    const auto length = count_code_points(got);
    if (!length) return add_here({"不是合法的 UTF-8 文本", "must be valid UTF-8"});
    if (*length > rule.max_length)
      return add_here({fmt::format("不能超过 {} 个字符", rule.max_length),
                       fmt::format("must not be longer than {} characters", rule.max_length)});
    if (!got.empty()) {
      if (auto why = violates(rule.form, got)) return add_here(std::move(*why));
      if (!rule.one_of.empty() && !is_choice(rule.one_of, got)) return refuse_choice(rule);
    }
    value = std::move(got);
  }

  void on_time(Time& value, const Rule&) override {
    const Json& json = *values_.back();
    if (is_empty(json)) return;
    std::optional<Time> got;
    if (json.is_string()) {
      got = parse_local(json.get_string());
      if (!got) got = parse_iso(json.get_string());
    }
    if (!got)
      return add_here({"应为 yyyy-MM-dd HH:mm:ss 形式的时间", "must be a time such as 2026-01-31T23:59:59Z"});
    value = *got;
  }

  void on_json(Json& value, const Rule&) override { value = *values_.back(); }

  void begin_object() override {
    const Json& json = *values_.back();
    if (!json.is_object() && !is_empty(json)) add_here({"应为对象", "must be an object"});
  }
  void end_object() override {}

  std::size_t begin_list(std::size_t, const Rule& rule) override {
    const Json& json = *values_.back();
    if (is_empty(json)) return 0;
    const auto* array = json.if_array();
    if (!array) {
      add_here({"应为数组", "must be an array"});
      return 0;
    }
    if (array->size() > rule.max_items) {
      add_here({fmt::format("不能超过 {} 项", rule.max_items),
                fmt::format("must not hold more than {} items", rule.max_items)});
      return 0;
    }
    return array->size();
  }
  bool enter_item(std::size_t index) override {
    path_.push_index(index);
    values_.push_back(&values_.back()->get_array()[index]);
    return true;
  }
  void leave_item() override { leave(); }
  void end_list() override {}

  bool on_optional(bool) override { return !is_empty(*values_.back()); }

  void refuse(std::string_view name, Text reason) override { add(name, std::move(reason)); }

 private:
  static bool is_empty(const Json& json) {
    return json.is_null() || (json.is_string() && json.get_string().empty());
  }
  bool adopt(Json json) {
    owned_.push_back(std::make_unique<Json>(std::move(json)));
    values_.push_back(owned_.back().get());
    return true;
  }
  void add(std::string_view name, Text text) {
    path_.push_name(name);
    add_here(std::move(text));
    path_.pop();
  }
  void add_here(Text text) {
    violations.push_back({path_.text().empty() ? "body" : path_.text(), std::move(text)});
  }
  void refuse_choice(const Rule& rule) {
    add_here({"只能是：" + list_choices(rule.one_of), "must be one of: " + list_choices(rule.one_of)});
  }

  Path path_;
  std::vector<const Json*> values_;
  std::vector<std::unique_ptr<Json>> owned_;
};

class SchemaMaker final : public Fields {
 public:
  SchemaMaker() { slots_.push_back(&root.emplace_object()); }
  Json root;

  bool reading() const override { return false; }
  bool enter(std::string_view name, const Rule& rule, bool) override {
    auto& parent = *slots_.back();
    if (rule.required) {
      auto& required = parent["required"];
      if (!required.is_array()) required.emplace_array();
      required.get_array().push_back(bj::value(name));
    }
    auto& properties = parent["properties"];
    if (!properties.is_object()) properties.emplace_object();
    auto& slot = properties.get_object()[name];
    slots_.push_back(&slot.emplace_object());
    if (!rule.doc.empty()) here()["description"] = rule.doc;
    return true;
  }
  void leave() override { slots_.pop_back(); }
  bool enter_embedded() override {
    here()["type"] = "string";
    here()["contentMediaType"] = "application/json";
    slots_.push_back(&here()["contentSchema"].emplace_object());
    return true;
  }
  void leave_embedded() override { slots_.pop_back(); }
  void on_bool(bool&, const Rule&) override { type("boolean"); }
  void on_integer(std::int64_t&, const Rule& rule) override {
    type("integer");
    bounds(rule);
    choices(rule, true);
  }
  void on_number(double&, const Rule& rule) override {
    type("number");
    bounds(rule);
  }
  void on_text(std::string&, const Rule& rule) override {
    type("string");
    here()["maxLength"] = rule.max_length;
    if (const auto pattern = pattern_of(rule.form); !pattern.empty()) here()["pattern"] = pattern;
    choices(rule, false);
  }
  void on_time(Time&, const Rule&) override {
    type("string");
    here()["format"] = "date-time";
  }
  void on_json(Json&, const Rule&) override {}
  void begin_object() override { type("object"); }
  void end_object() override {}
  std::size_t begin_list(std::size_t, const Rule& rule) override {
    type("array");
    here()["maxItems"] = rule.max_items;
    slots_.push_back(&here()["items"].emplace_object());
    return 1;
  }
  bool enter_item(std::size_t) override { return true; }
  void leave_item() override {}
  void end_list() override { slots_.pop_back(); }
  bool on_optional(bool) override {
    nullable_ = true;
    return true;
  }

 private:
  bj::object& here() { return *slots_.back(); }
  void type(const char* name) {
    if (nullable_) {
      here()["type"] = bj::array({Json(name), Json("null")});
    } else {
      here()["type"] = name;
    }
    nullable_ = false;
  }
  void bounds(const Rule& rule) {
    if (rule.min > -9e15)
      here()["minimum"] =
          rule.min == std::floor(rule.min) ? Json(static_cast<std::int64_t>(rule.min)) : Json(rule.min);
    if (rule.max < 9e15)
      here()["maximum"] =
          rule.max == std::floor(rule.max) ? Json(static_cast<std::int64_t>(rule.max)) : Json(rule.max);
  }
  void choices(const Rule& rule, bool numbers) {
    if (rule.one_of.empty()) return;
    const bool nullable = here()["type"].is_array();
    auto& list = here()["enum"].emplace_array();
    for (std::string_view rest = rule.one_of;;) {
      const auto bar = rest.find('|');
      const auto word = rest.substr(0, bar);
      if (numbers) {
        list.push_back(number_in<std::int64_t>(word).value_or(0));
      } else {
        list.push_back(bj::value(word));
      }
      if (bar == std::string_view::npos) break;
      rest.remove_prefix(bar + 1);
    }
    if (nullable) list.push_back(nullptr);
  }

  std::vector<bj::object*> slots_;
  bool nullable_ = false;
};

}  // namespace

Result<Json> parse(std::string_view text) {
  boost::system::error_code error;
  bj::parse_options options;
  options.max_depth = 32;
  bj::stream_parser parser({}, options);
  const std::size_t used = parser.write_some(text.data(), text.size(), error);
  if (!error && used < text.size() && text.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    error = bj::error::extra_data;
  if (!error) parser.finish(error);
  if (error)
    return Error{Code::invalid_argument,
                 {fmt::format("请求体不是合法的 JSON（位置 {}：{}）", used, error.message()),
                  fmt::format("the body is not valid JSON (at {}: {})", used, error.message())}};
  return parser.release();
}

std::string print(const Json& value) {
  return bj::serialize(value);
}

Result<void> read_fields(const Json& object, void* target, void (*visit)(Fields&, void*)) {
  Reader reader(object);
  visit(reader, target);
  if (reader.violations.empty()) return {};
  return Error{Code::invalid_argument, {"参数有误", "invalid request"}, std::move(reader.violations)};
}

Json schema_of(void* sample, void (*visit)(Fields&, void*)) {
  SchemaMaker maker;
  visit(maker, sample);
  return std::move(maker.root);
}

}  // namespace lathe::json
