#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "algorithms/definition.h"

/// From an algorithm and its values to the words of a command.
namespace lathe::algorithms {

namespace {

const std::string* value_of(std::span<const NamedValue> values, std::string_view name) {
  for (const auto& each : values)
    if (each.name == name && !each.value.empty()) return &each.value;
  return nullptr;
}

/// The values that placeholders stand for.
struct Values {
  std::span<const NamedValue> places, parameters;

  const std::string* find(std::string_view name) const {
    const std::string* found = value_of(places, name);
    return found ? found : value_of(parameters, name);
  }
  /// The word with its placeholders replaced; what a value holds is never itself looked at. Nothing where one
  /// is absent, which `missing` then names.
  std::optional<std::string> fill(std::string_view word, std::string& missing) const {
    std::string out;
    while (true) {
      const auto begin = word.find("${");
      const auto end = begin == std::string_view::npos ? begin : word.find('}', begin);
      out += word.substr(0, end == std::string_view::npos ? end : begin);
      if (end == std::string_view::npos) return out;
      const std::string_view name = word.substr(begin + 2, end - begin - 2);
      const std::string* value = find(name);
      if (!value) {
        missing = name;
        return std::nullopt;
      }
      out += *value;
      word.remove_prefix(end + 1);
    }
  }
};

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : text) {
    if (c != ',' && c != ' ' && c != '\t' && c != '\n') {
      word += c;
    } else if (!word.empty()) {
      out.push_back(std::exchange(word, {}));
    }
  }
  if (!word.empty()) out.push_back(std::move(word));
  return out;
}

/// The parameters that the command's own words already use.
std::set<std::string, std::less<>> used_names(const Algorithm& algorithm) {
  std::set<std::string, std::less<>> out;
  const auto take = [&](const std::vector<std::string>& words) {
    for (const auto& word : words)
      for (auto& name : placeholders_in(word)) out.insert(std::move(name));
  };
  take(algorithm.command);
  for (const auto& option : algorithm.options) take(option.words);
  for (const auto& variable : algorithm.env) take({variable.value});
  return out;
}

const Parameter* known(const Algorithm& algorithm, std::string_view name) {
  const auto it = std::find_if(algorithm.parameters.begin(), algorithm.parameters.end(),
                               [&](const Parameter& p) { return p.name == name; });
  return it == algorithm.parameters.end() ? nullptr : &*it;
}

void append(const Algorithm& algorithm, const Parameter& parameter, const std::string& value,
            std::vector<std::string>& argv) {
  const std::string& name = parameter.argument.empty() ? parameter.name : parameter.argument;
  if (algorithm.arguments == "assignments") {
    argv.push_back(name + "=" + value);
  } else if (parameter.type == "switch") {
    if (value == "true") argv.push_back("--" + name);
  } else if (parameter.type == "words") {
    argv.push_back("--" + name);
    for (auto& word : split_words(value)) argv.push_back(std::move(word));
  } else {
    argv.push_back("--" + name);
    argv.push_back(value);
  }
}

Error absent(const std::string& name) {
  return invalid_field(name, {"该预置算法需要它", "is needed by this preset algorithm"});
}

}  // namespace

Result<std::vector<NamedValue>> settle(const Algorithm& algorithm, std::span<const NamedValue> given,
                                       std::string_view field) {
  Error wrong{Code::invalid_argument, {"超参数有误", "invalid hyper-parameters"}};
  const auto refuse = [&](std::string_view name, Text why) {
    wrong.violations.push_back({fmt::format("{}.{}", field, name), std::move(why)});
  };
  std::vector<NamedValue> out;
  std::set<std::string_view> seen;
  for (const auto& each : given) {
    const Parameter* parameter = known(algorithm, each.name);
    if (!parameter) {
      refuse(each.name, {"该预置算法没有这个超参数", "is not a hyper-parameter of this preset algorithm"});
      continue;
    }
    if (each.value.empty()) continue;
    if (!seen.insert(parameter->name).second) {
      refuse(each.name, {"重复", "is given twice"});
      continue;
    }
    if (auto why = refuse_value(*parameter, each.value)) refuse(each.name, std::move(*why));
    out.push_back(each);
  }
  for (const Parameter& parameter : algorithm.parameters) {
    if (seen.contains(parameter.name)) continue;
    if (!parameter.value.empty())
      out.push_back({parameter.name, parameter.value});
    else if (parameter.required)
      refuse(parameter.name, {"不能为空", "is required"});
  }
  if (!wrong.violations.empty()) return wrong;
  return out;
}

Result<std::vector<std::string>> make_argv(const Algorithm& algorithm, std::span<const NamedValue> places,
                                           std::span<const NamedValue> parameters) {
  const Values values{places, parameters};
  for (const auto& need : algorithm.needs)
    if (!value_of(places, need)) return absent(need);
  std::vector<std::string> argv;
  std::string missing;
  const auto add = [&](const std::vector<std::string>& words) {
    for (const auto& word : words) {
      auto filled = values.fill(word, missing);
      if (!filled) return false;
      argv.push_back(std::move(*filled));
    }
    return true;
  };
  if (!add(algorithm.command)) return absent(missing);
  for (const auto& option : algorithm.options)
    if (values.find(option.when) && !add(option.words)) return absent(missing);
  if (algorithm.arguments == "none") return argv;
  const auto used = used_names(algorithm);
  for (const auto& each : parameters) {
    const Parameter* parameter = known(algorithm, each.name);
    if (parameter && !used.contains(each.name) && !each.value.empty())
      append(algorithm, *parameter, each.value, argv);
  }
  return argv;
}

Result<std::vector<NamedValue>> make_env(const Algorithm& algorithm, std::span<const NamedValue> places,
                                         std::span<const NamedValue> parameters) {
  const Values values{places, parameters};
  std::vector<NamedValue> out;
  std::string missing;
  for (const auto& variable : algorithm.env)
    if (auto filled = values.fill(variable.value, missing))
      out.push_back({variable.name, std::move(*filled)});
  return out;
}

}  // namespace lathe::algorithms
