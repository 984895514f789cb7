#include "base/handwritten_yaml.h"

#include <fmt/format.h>
#include <yaml.h>

#include <boost/json.hpp>
#include <charconv>
#include <optional>

namespace lathe::yaml {

namespace {

namespace bj = boost::json;

constexpr std::size_t kMaxText = 1 << 20;
constexpr std::size_t kMaxDepth = 32;

Error wrong(std::size_t line, const Text& why) {
  return {Code::invalid_argument,
          {fmt::format("不是合法的 YAML（第 {} 行：{}）", line, why.zh),
           fmt::format("not valid YAML (line {}: {})", line, why.en)}};
}

template <class Word>
bool is_one_of(std::string_view text, std::initializer_list<Word> words) {
  for (const std::string_view word : words)
    if (text == word) return true;
  return false;
}

std::size_t digits_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
  return end - at;
}

/// [-+]?[0-9]+, 0o[0-7]+ or 0x[0-9a-fA-F]+.
std::optional<std::int64_t> whole_number(std::string_view text) {
  int base = 10;
  const bool sign = text.starts_with('+') || text.starts_with('-');
  const bool minus = text.starts_with('-');
  if (sign) text.remove_prefix(1);
  if (!sign && (text.starts_with("0o") || text.starts_with("0x"))) {
    base = text[1] == 'o' ? 8 : 16;
    text.remove_prefix(2);
  }
  if (text.empty() || text.front() == '-') return std::nullopt;
  const std::string digits = (minus ? "-" : "") + std::string(text);
  std::int64_t out = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out, base);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return out;
}

/// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?; infinities and what is no number stay text, since
/// nothing here may be one.
std::optional<double> number(std::string_view text) {
  std::size_t at = text.starts_with('+') || text.starts_with('-') ? 1 : 0;
  const std::size_t before = digits_at(text, at);
  at += before;
  std::size_t after = 0;
  if (at < text.size() && text[at] == '.') {
    after = digits_at(text, at + 1);
    at += 1 + after;
  }
  if (before + after == 0) return std::nullopt;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const std::size_t exponent = digits_at(text, at);
    if (exponent == 0) return std::nullopt;
    at += exponent;
  }
  if (at != text.size()) return std::nullopt;
  if (text.starts_with('+')) text.remove_prefix(1);
  double out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

Json core_schema(std::string_view text) {
  if (is_one_of(text, {"", "~", "null", "Null", "NULL"})) return nullptr;
  if (is_one_of(text, {"true", "True", "TRUE"})) return true;
  if (is_one_of(text, {"false", "False", "FALSE"})) return false;
  if (const auto whole = whole_number(text)) return *whole;
  if (const auto real = number(text)) return *real;
  return bj::value(text);
}

bool is_text(const bj::object* schema) {
  const Json* type = schema ? schema->if_contains("type") : nullptr;
  if (type && type->is_array()) type = &type->get_array().front();
  return type && *type == "string";
}

const bj::object* member(const bj::object* schema, std::string_view name) {
  const Json* found = schema ? schema->if_contains(name) : nullptr;
  return found ? found->if_object() : nullptr;
}

/// libyaml's events, one after the other.
class Events {
 public:
  explicit Events(std::string_view text) {
    if (yaml_parser_initialize(&parser_) == 0) throw std::bad_alloc();
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~Events() {
    if (held_) yaml_event_delete(&event_);
    yaml_parser_delete(&parser_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  /// Valid until the next call.
  Result<const yaml_event_t*> next() {
    if (held_) yaml_event_delete(&event_);
    held_ = yaml_parser_parse(&parser_, &event_) != 0;
    if (held_) return &event_;
    const std::string problem = parser_.problem ? parser_.problem : "cannot be read";
    // The reader, which refuses what is no UTF-8, knows no lines.
    const bool placed = parser_.error == YAML_SCANNER_ERROR || parser_.error == YAML_PARSER_ERROR;
    return wrong((placed ? parser_.problem_mark.line : parser_.mark.line) + 1, {problem, problem});
  }

 private:
  yaml_parser_t parser_{};
  yaml_event_t event_{};
  bool held_ = false;
};

std::size_t line_of(const yaml_event_t& event) {
  return event.start_mark.line + 1;
}

std::string_view text_of(const yaml_event_t& scalar) {
  return {reinterpret_cast<const char*>(scalar.data.scalar.value), scalar.data.scalar.length};
}

class Builder {
 public:
  Builder(std::string_view text, Document& out) : events_(text), out_(out) {}

  Result<void> run(const bj::object* schema) {
    TRY(events_.next());  // the stream
    const auto* event = TRY(events_.next());
    if (event->type == YAML_STREAM_END_EVENT) return wrong(1, {"没有内容", "there is nothing in it"});
    out_.value = TRY(value(*TRY(events_.next()), schema, "", 0));
    TRY(events_.next());  // the document's end
    event = TRY(events_.next());
    if (event->type != YAML_STREAM_END_EVENT)
      return wrong(line_of(*event), {"只能有一个文档", "there is a second document"});
    return {};
  }

 private:
  Result<Json> value(const yaml_event_t& event, const bj::object* schema, const std::string& path,
                     std::size_t depth) {
    const std::size_t line = line_of(event);
    out_.lines.emplace(path, static_cast<int>(line));
    if (depth > kMaxDepth) return wrong(line, {"嵌套过深", "is nested too deep"});
    TRY(check_plain(event));
    switch (event.type) {
      case YAML_SCALAR_EVENT:
        if (event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return Json(bj::string(text_of(event)));
        if (is_text(schema) && !text_of(event).empty()) return Json(bj::string(text_of(event)));
        return core_schema(text_of(event));
      case YAML_SEQUENCE_START_EVENT:
        return list(member(schema, "items"), path, depth);
      case YAML_MAPPING_START_EVENT:
        return object(member(schema, "properties"), path, depth);
      default:
        return wrong(line, {"不能使用别名", "aliases are not read"});
    }
  }

  /// What would make a value something else than it looks.
  static Result<void> check_plain(const yaml_event_t& event) {
    const unsigned char *anchor = nullptr, *tag = nullptr;
    if (event.type == YAML_SCALAR_EVENT) {
      anchor = event.data.scalar.anchor;
      tag = event.data.scalar.tag;
    } else if (event.type == YAML_SEQUENCE_START_EVENT) {
      anchor = event.data.sequence_start.anchor;
      tag = event.data.sequence_start.tag;
    } else if (event.type == YAML_MAPPING_START_EVENT) {
      anchor = event.data.mapping_start.anchor;
      tag = event.data.mapping_start.tag;
    }
    if (anchor) return wrong(line_of(event), {"不能使用锚点", "anchors are not read"});
    if (tag) return wrong(line_of(event), {"不能使用标签", "tags are not read"});
    return {};
  }

  Result<Json> list(const bj::object* items, const std::string& path, std::size_t depth) {
    bj::array out;
    while (true) {
      const auto* event = TRY(events_.next());
      if (event->type == YAML_SEQUENCE_END_EVENT) return Json(std::move(out));
      out.push_back(TRY(value(*event, items, fmt::format("{}[{}]", path, out.size()), depth + 1)));
    }
  }

  Result<Json> object(const bj::object* properties, const std::string& path, std::size_t depth) {
    bj::object out;
    while (true) {
      const auto* event = TRY(events_.next());
      if (event->type == YAML_MAPPING_END_EVENT) return Json(std::move(out));
      const std::size_t line = line_of(*event);
      TRY(check_plain(*event));
      if (event->type != YAML_SCALAR_EVENT) return wrong(line, {"键应为文本", "a key must be text"});
      const std::string key(text_of(*event));
      if (out.contains(key)) return wrong(line, {"键重复：" + key, "has the key " + key + " twice"});
      const std::string inner = path.empty() ? key : path + "." + key;
      out_.lines.emplace(inner, static_cast<int>(line));
      out[key] = TRY(value(*TRY(events_.next()), member(properties, key), inner, depth + 1));
    }
  }

  Events events_;
  Document& out_;
};

}  // namespace

int Document::line_of(std::string_view field) const {
  while (true) {
    if (const auto it = lines.find(field); it != lines.end()) return it->second;
    const auto end = field.find_last_of(".[");
    field = field.substr(0, end == std::string_view::npos ? 0 : end);
    if (field.empty()) break;
  }
  const auto root = lines.find("");
  return root == lines.end() ? 1 : root->second;
}

Result<Document> parse_handwritten(std::string_view text, const Json& schema) {
  if (text.size() > kMaxText) return wrong(1, {"文件过大", "the file is too large"});
  Document out;
  TRY(Builder(text, out).run(schema.if_object()));
  return out;
}

}  // namespace lathe::yaml
