#include "algorithms/definition.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <set>

#include "base/handwritten_json.h"
#include "base/handwritten_yaml.h"

namespace lathe::algorithms {

namespace {

struct KindName {
  Kind kind;
  std::string_view name;
};
constexpr KindName kKinds[] = {{Kind::fine_tune, "fine_tune"},
                               {Kind::pretrain, "pretrain"},
                               {Kind::modelling, "modelling"},
                               {Kind::evaluation, "evaluation"},
                               {Kind::serving, "serving"}};

constexpr std::string_view kDirectories[] = {"model_dir", "input_dir", "output_dir", "checkpoint_dir",
                                             "work_dir"};
constexpr std::string_view kServing[] = {"host", "port", "name"};

template <class List>
bool contains(const List& list, std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number out{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

/// Looks for what no single field's rule can say.
class Check {
 public:
  explicit Check(const wire::Definition& definition) : d_(definition), a_(definition.algorithm) {}

  std::vector<Violation> run() && {
    parameters();
    command();
    if (a_.kind == Kind::serving) serving();
    if (a_.kind != Kind::serving && a_.port != 0) add("port", {"仅用于推理服务", "is for serving only"});
    for (std::size_t i = 0; i < a_.needs.size(); ++i)
      if (!contains(kDirectories, a_.needs[i]))
        add(fmt::format("needs[{}]", i), {fmt::format("只能是：{}", fmt::join(kDirectories, ", ")),
                                          fmt::format("must be one of: {}", fmt::join(kDirectories, ", "))});
    return std::move(out_);
  }

 private:
  void add(std::string field, Text why) { out_.push_back({std::move(field), std::move(why)}); }

  void parameters() {
    std::set<std::string_view> seen;
    for (std::size_t i = 0; i < a_.parameters.size(); ++i) {
      const Parameter& p = a_.parameters[i];
      const std::string at = fmt::format("parameters[{}].", i);
      if (!seen.insert(p.name).second || place(p.name))
        add(at + "name", {"名称已被使用：" + p.name, "is taken: " + p.name});
      if (p.min && p.max && *p.min > *p.max) add(at + "max", {"小于 min", "is less than min"});
      if ((p.min || p.max) && p.type != "integer" && p.type != "number")
        add(at + "type", {"min 与 max 只用于数字", "min and max are for numbers only"});
      if (p.value.empty()) continue;
      if (auto why = refuse_value(p, p.value)) add(at + "default", std::move(*why));
    }
  }

  void command() {
    for (std::size_t i = 0; i < a_.command.size(); ++i)
      words(fmt::format("command[{}]", i), a_.command[i], true, {});
    if (a_.command.empty() || a_.command[0].empty()) add("command", {"不能为空", "is required"});
    for (std::size_t i = 0; i < a_.options.size(); ++i) {
      const auto& option = a_.options[i];
      const std::string at = fmt::format("options[{}].", i);
      if (!known(option.when)) add(at + "when", unknown(option.when));
      for (std::size_t k = 0; k < option.words.size(); ++k)
        words(fmt::format("{}words[{}]", at, k), option.words[k], true, option.when);
    }
    for (std::size_t i = 0; i < a_.env.size(); ++i)
      words(fmt::format("env[{}].value", i), a_.env[i].value, false, {});
  }

  /// What a word needs must be known, and, where it must be there, be certain to be.
  void words(const std::string& field, const std::string& word, bool needed, std::string_view given) {
    for (const std::string& name : placeholders_in(word)) {
      if (!known(name)) {
        add(field, unknown(name));
      } else if (needed && name != given && !certain(name)) {
        add(field, {fmt::format("${{{}}} 可能没有值：列入 needs，或设为 required，或移到 options", name),
                    fmt::format("${{{}}} may have no value: name it in needs, make it required, or move the "
                                "word to options",
                                name)});
      }
    }
  }

  void serving() {
    if (a_.port == 0) add("port", {"不能为空", "is required"});
    bool uses_port = false;
    for (const auto& word : a_.command) uses_port = uses_port || contains(placeholders_in(word), "port");
    for (const auto& variable : a_.env)
      uses_port = uses_port || contains(placeholders_in(variable.value), "port");
    if (!uses_port) add("command", {"没有使用 ${port}", "does not use ${port}"});
    if (a_.ready_path.empty() || a_.ready_path[0] != '/')
      add("readyPath", {"应以 / 开头", "must begin with /"});
  }

  bool place(std::string_view name) const {
    return contains(kDirectories, name) || (name == "algorithm_dir" && !d_.code.empty()) ||
           (name == "fine_tune_strategy" && a_.kind == Kind::fine_tune) ||
           (contains(kServing, name) && a_.kind == Kind::serving);
  }
  const Parameter* parameter(std::string_view name) const {
    const auto it = std::find_if(a_.parameters.begin(), a_.parameters.end(),
                                 [&](const Parameter& p) { return p.name == name; });
    return it == a_.parameters.end() ? nullptr : &*it;
  }
  bool known(std::string_view name) const { return place(name) || parameter(name); }
  bool certain(std::string_view name) const {
    if (const Parameter* p = parameter(name)) return p->required || !p->value.empty();
    return contains(a_.needs, name) || name == "work_dir" || name == "algorithm_dir" || name == "port" ||
           name == "name";
  }
  static Text unknown(const std::string& name) {
    return {fmt::format("未知的占位符 ${{{}}}", name),
            fmt::format("has the unknown placeholder ${{{}}}", name)};
  }

  const wire::Definition& d_;
  const Algorithm& a_;
  std::vector<Violation> out_;
};

Text must_be(const char* zh, const char* en) {
  return {fmt::format("应为{}", zh), fmt::format("must be {}", en)};
}

std::optional<Text> refuse_number(const Parameter& p, std::string_view value) {
  const bool whole = p.type == "integer";
  std::optional<double> number;
  if (whole) {
    if (const auto integer = parse_number<std::int64_t>(value)) number = static_cast<double>(*integer);
  } else {
    number = parse_number<double>(value);
  }
  if (!number || !std::isfinite(*number))
    return whole ? must_be("整数", "a whole number") : must_be("数字", "a number");
  if (p.min && *number < *p.min)
    return Text{fmt::format("不能小于 {:.12g}", *p.min),
                fmt::format("must not be less than {:.12g}", *p.min)};
  if (p.max && *number > *p.max)
    return Text{fmt::format("不能大于 {:.12g}", *p.max),
                fmt::format("must not be more than {:.12g}", *p.max)};
  return std::nullopt;
}

constexpr std::string_view kBlanks = " \t\n";

/// A command written as text. No shell reads it: what only a shell would understand is refused, so that
/// nobody counts on it.
void split_words(Json& value, const std::string& field, std::vector<Violation>& wrong) {
  const auto* text = value.if_string();
  if (!text) return;
  const std::string_view all = *text;
  if (all.find_first_of("'\"\\") != std::string_view::npos) {
    wrong.push_back({field,
                     {"文本形式的命令按空白分词，不能含引号和反斜杠；请写成列表",
                      "is text, which is split at blanks: quotes and backslashes need the form of a list"}});
    return;
  }
  boost::json::array words;
  for (std::size_t at = all.find_first_not_of(kBlanks); at != std::string_view::npos;) {
    const std::size_t end = std::min(all.find_first_of(kBlanks, at), all.size());
    words.emplace_back(all.substr(at, end - at));
    at = all.find_first_not_of(kBlanks, end);
  }
  value = std::move(words);
}

void split_commands(Json& definition, std::vector<Violation>& wrong) {
  auto* object = definition.if_object();
  if (!object) return;
  if (Json* command = object->if_contains("command")) split_words(*command, "command", wrong);
  Json* options = object->if_contains("options");
  auto* list = options ? options->if_array() : nullptr;
  for (std::size_t i = 0; list && i < list->size(); ++i) {
    auto* option = (*list)[i].if_object();
    if (Json* words = option ? option->if_contains("words") : nullptr)
      split_words(*words, fmt::format("options[{}].words", i), wrong);
  }
}

void say_lines(const yaml::Document& file, std::vector<Violation>& wrong) {
  for (auto& [field, text] : wrong) {
    const int line = file.line_of(field);
    text = {fmt::format("{}（第 {} 行）", text.zh, line), fmt::format("{} (line {})", text.en, line)};
  }
}

}  // namespace

std::string_view name(Kind kind) {
  return kKinds[static_cast<std::size_t>(kind)].name;
}

std::optional<Kind> kind_named(std::string_view name) {
  for (const auto& row : kKinds)
    if (row.name == name) return row.kind;
  return std::nullopt;
}

std::vector<std::string> placeholders_in(std::string_view word) {
  std::vector<std::string> out;
  for (std::size_t at = 0; (at = word.find("${", at)) != std::string_view::npos;) {
    const auto end = word.find('}', at);
    if (end == std::string_view::npos) {
      out.emplace_back(word.substr(at + 2));
      break;
    }
    out.emplace_back(word.substr(at + 2, end - at - 2));
    at = end + 1;
  }
  return out;
}

std::optional<Text> refuse_value(const Parameter& p, std::string_view value) {
  if (value.find('\0') != std::string_view::npos) return must_be("不含 NUL 的文本", "text without NUL");
  if (p.type == "integer" || p.type == "number") {
    if (auto why = refuse_number(p, value)) return why;
  } else if (p.type == "boolean" || p.type == "switch") {
    if (value != "true" && value != "false") return must_be(" true 或 false", "true or false");
  }
  if (!p.choices.empty() && !contains(p.choices, value))
    return Text{fmt::format("只能是：{}", fmt::join(p.choices, ", ")),
                fmt::format("must be one of: {}", fmt::join(p.choices, ", "))};
  return std::nullopt;
}

Result<wire::Definition> read_definition(std::string_view text, Format format) {
  const Json schema = json::schema<wire::Definition>();
  yaml::Document file;
  if (format == Format::yaml)
    file = TRY(yaml::parse_handwritten(text, schema));
  else
    file.value = TRY(json::parse_handwritten(text));
  Error wrong{Code::invalid_argument, {"算法定义有误", "invalid definition of an algorithm"}};
  split_commands(file.value, wrong.violations);
  wire::Definition definition;
  definition.algorithm.image = "host";
  auto read = json::read<wire::Definition>(file.value);
  if (!wrong.violations.empty()) {
    // What a wrong command would be said to lack is not worth saying.
  } else if (read.ok()) {
    definition = std::move(*read);
    if (definition.algorithm.image.empty()) definition.algorithm.image = "host";
    for (auto& p : definition.algorithm.parameters)
      if (p.group.empty()) p.group = "common";
    definition.algorithm.kind = *kind_named(definition.kind);
    wrong.violations = Check(definition).run();
  } else {
    wrong.violations = read.error().violations;
  }
  for (auto& unknown :
       json::unknown_keys(file.value, schema, {"没有这个字段", "is not a field of a definition"}))
    wrong.violations.push_back(std::move(unknown));
  if (wrong.violations.empty()) return definition;
  if (format == Format::yaml) say_lines(file, wrong.violations);
  return wrong;
}

}  // namespace lathe::algorithms
