#include "jobs/progress/trainer_output.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>

namespace lathe::progress {

namespace bj = boost::json;

namespace {

constexpr std::size_t kMaxKey = 200;
constexpr std::size_t kMaxLine = 64 * 1024;

std::optional<double> to_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '+')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

/// Numbers, and texts that are numbers: newer Trainers print `'loss': '1.2'`.
std::optional<double> to_number(const bj::value& value) {
  if (value.is_string()) return to_number(std::string_view(value.get_string()));
  if (!value.is_number()) return std::nullopt;
  const double number = value.to_number<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::optional<std::int64_t> to_step(const bj::value* value) {
  if (!value) return std::nullopt;
  const auto number = to_number(*value);
  if (!number || *number < 0 || *number > 1e15) return std::nullopt;
  return static_cast<std::int64_t>(*number);
}

std::optional<bj::value> parse(std::string_view text) {
  boost::system::error_code error;
  bj::value value = bj::parse(text, error);
  if (error) return std::nullopt;
  return value;
}

void add(Findings& out, std::string key, double value, std::int64_t step = -1) {
  if (key.empty() || key.size() > kMaxKey) return;
  out.metrics.push_back({std::move(key), value, step, {}});
}

/// Every number of an object, nested ones under `prefix/`.
void add_all(Findings& out, const bj::object& object, const std::string& prefix, std::int64_t step,
             int depth = 0) {
  for (const auto& member : object) {
    const std::string key = prefix + std::string(member.key());
    if (member.value().is_object() && depth < 4) {
      add_all(out, member.value().get_object(), key + "/", step, depth + 1);
    } else if (const auto number = to_number(member.value())) {
      add(out, key, *number, step);
    }
  }
}

std::string without_escapes(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] != '\033') {
      out += line[i];
      continue;
    }
    if (i + 1 < line.size() && line[i + 1] == '[')
      for (++i; i + 1 < line.size() && (line[i + 1] < '@' || line[i + 1] > '~');) ++i;
    ++i;
  }
  return out;
}

/// A Python dict of numbers and texts as JSON: only what `print(dict)` writes, nothing that needs evaluation.
std::optional<bj::object> python_dict(std::string_view text) {
  const auto open = text.find('{'), close = text.rfind('}');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return std::nullopt;
  std::string json;
  char quote = 0;
  for (const char c : text.substr(open, close - open + 1)) {
    if (quote) {
      if (c == quote) {
        json += '"';
        quote = 0;
      } else {
        json += c == '"' ? '\'' : c;
      }
    } else if (c == '\'' || c == '"') {
      json += '"';
      quote = c;
    } else {
      json += c;
    }
  }
  const std::pair<std::string_view, std::string_view> kWords[] = {
      {": nan", ": null"},  {": inf", ": null"},    {": -inf", ": null"}, {": None", ": null"},
      {": True", ": true"}, {": False", ": false"}, {": NaN", ": null"}};
  for (const auto& [from, to] : kWords)
    for (auto at = json.find(from); at != std::string::npos; at = json.find(from, at))
      json.replace(at, from.size(), to);
  auto value = parse(json);
  if (!value || !value->is_object()) return std::nullopt;
  return std::move(value->get_object());
}

/// `12%|█▏   | 48/400 [00:02<00:16, 21.3it/s]`, in the whole or its parts.
std::optional<std::pair<std::int64_t, std::int64_t>> tqdm_bar(std::string_view line) {
  const auto bar = line.find("%|");
  if (bar == std::string_view::npos) return std::nullopt;
  const auto end = line.find('|', bar + 2);
  if (end == std::string_view::npos) return std::nullopt;
  line.remove_prefix(end + 1);
  const auto slash = line.find('/'), bracket = line.find('[');
  if (slash == std::string_view::npos || bracket == std::string_view::npos || slash > bracket)
    return std::nullopt;
  const auto done = to_number(line.substr(0, slash)),
             total = to_number(line.substr(slash + 1, bracket - slash - 1));
  if (!done || !total || *total < 1 || *done < 0 || *done > *total || *total > 1e15) return std::nullopt;
  return std::pair(static_cast<std::int64_t>(*done), static_cast<std::int64_t>(*total));
}

/// `step=10 loss=1.5`, `epoch: 2, loss: 0.5, acc: 0.9`: taken only where a step or epoch is among them.
Findings key_values(std::string_view line) {
  Findings out;
  std::vector<std::pair<std::string, double>> pairs;
  std::optional<std::int64_t> step;
  bool counted = false;
  auto is_key = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '/' || c == '-' || c == '.';
  };
  for (std::size_t i = 0; i < line.size();) {
    if (line[i] != '=' && line[i] != ':') {
      ++i;
      continue;
    }
    std::size_t begin = i;
    while (begin > 0 && is_key(line[begin - 1])) --begin;
    std::size_t value = i + 1;
    while (value < line.size() && line[value] == ' ') ++value;
    std::size_t end = value;
    while (end < line.size() && line[end] != ' ' && line[end] != ',' && line[end] != ';' && line[end] != '|')
      ++end;
    const std::string key(line.substr(begin, i - begin));
    const auto number = to_number(line.substr(value, end - value));
    if (!key.empty() && !std::isdigit(static_cast<unsigned char>(key[0])) && number) {
      if (key == "step" || key == "global_step" || key == "iter" || key == "iteration") {
        step = static_cast<std::int64_t>(std::clamp(*number, 0.0, 1e15));
        counted = true;
      } else {
        counted = counted || key == "epoch";
        pairs.emplace_back(key, *number);
      }
    }
    i = std::max(end, i + 1);
  }
  if (!counted) return out;
  out.step = step;
  for (auto& [key, number] : pairs) add(out, std::move(key), number, step.value_or(-1));
  return out;
}

Findings from_dict(const bj::object& dict, std::optional<std::int64_t> last_step) {
  Findings out;
  for (const char* name : {"step", "global_step", "current_steps"})
    if (!out.step) out.step = to_step(dict.if_contains(name));
  for (const char* name : {"max_steps", "total_steps"})
    if (!out.total_steps) out.total_steps = to_step(dict.if_contains(name));
  const auto step = out.step ? out.step : last_step;
  add_all(out, dict, "", step.value_or(-1));
  std::erase_if(out.metrics, [](const Metric& m) {
    return m.key == "step" || m.key == "global_step" || m.key == "current_steps" || m.key == "max_steps" ||
           m.key == "total_steps";
  });
  return out;
}

std::vector<std::string> csv_row(std::string_view line) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      out.emplace_back();
    } else if (c != '\r') {
      out.back() += c;
    }
  }
  return out;
}

}  // namespace

void Findings::merge(Findings other) {
  metrics.insert(metrics.end(), std::make_move_iterator(other.metrics.begin()),
                 std::make_move_iterator(other.metrics.end()));
  if (other.step) step = other.step;
  if (other.total_steps) total_steps = other.total_steps;
  if (other.fraction) fraction = other.fraction;
}

Findings read_log_line(std::string_view raw, std::optional<std::int64_t> last_step) {
  if (raw.size() > kMaxLine) return {};
  // A progress bar rewrites its line: what stands after the last carriage return counts.
  while (!raw.empty() && (raw.back() == '\r' || raw.back() == '\n')) raw.remove_suffix(1);
  Findings out;
  const std::string line = without_escapes(raw);
  std::string_view text = line;
  for (auto cr = text.find('\r');; cr = text.find('\r')) {
    const auto part = text.substr(0, cr);
    if (const auto bar = tqdm_bar(part)) {
      out.step = last_step = bar->first;
      out.total_steps = bar->second;
      out.fraction = static_cast<double>(bar->first) / static_cast<double>(bar->second);
    }
    if (cr == std::string_view::npos) break;
    text.remove_prefix(cr + 1);
  }
  if (text.find('{') != std::string_view::npos) {
    if (const auto dict = python_dict(text)) out.merge(from_dict(*dict, last_step));
  } else if (!out.step) {
    out.merge(key_values(text));
  }
  return out;
}

Findings read_trainer_state(std::string_view json) {
  Findings out;
  const auto value = parse(json);
  if (!value || !value->is_object()) return out;
  const auto& state = value->get_object();
  if (const auto* history = state.if_contains("log_history"); history && history->is_array())
    for (const auto& entry : history->get_array())
      if (entry.is_object()) out.merge(from_dict(entry.get_object(), {}));
  out.step = to_step(state.if_contains("global_step"));
  out.total_steps = to_step(state.if_contains("max_steps"));
  if (out.step && out.total_steps && *out.total_steps > 0)
    out.fraction = std::min(1.0, static_cast<double>(*out.step) / static_cast<double>(*out.total_steps));
  return out;
}

Findings read_trainer_log_line(std::string_view json) {
  const auto value = parse(json);
  if (!value || !value->is_object()) return {};
  Findings out = from_dict(value->get_object(), {});
  for (auto it = out.metrics.begin(); it != out.metrics.end();) {
    if (it->key == "percentage") {
      out.fraction = std::clamp(it->value / 100, 0.0, 1.0);
      it = out.metrics.erase(it);
    } else {
      if (it->key == "lr") it->key = "learning_rate";
      ++it;
    }
  }
  return out;
}

Findings read_lm_eval(std::string_view json) {
  Findings out;
  const auto value = parse(json);
  const auto* results = value && value->is_object() ? value->get_object().if_contains("results") : nullptr;
  if (!results || !results->is_object()) return out;
  for (const auto& task : results->get_object()) {
    if (!task.value().is_object()) continue;
    for (const auto& member : task.value().get_object()) {
      const auto number = to_number(member.value());
      if (!number) continue;
      std::string key(member.key());
      if (key.ends_with(",none")) key.resize(key.size() - 5);
      add(out, std::string(task.key()) + "/" + key, *number);
    }
  }
  return out;
}

Findings read_opencompass_summary(std::string_view csv) {
  Findings out;
  std::vector<std::string> header;
  while (!csv.empty()) {
    const auto end = std::min(csv.find('\n'), csv.size());
    auto row = csv_row(csv.substr(0, end));
    csv.remove_prefix(std::min(end + 1, csv.size()));
    if (header.empty()) {
      header = std::move(row);
      if (header.size() < 5 || header[0] != "dataset") return out;
      continue;
    }
    for (std::size_t i = 4; i < row.size() && i < header.size(); ++i)
      if (const auto number = to_number(std::string_view(row[i])))
        add(out, (header.size() > 5 ? header[i] + "/" : "") + row[0] + "/" + row[2], *number);
  }
  return out;
}

Findings read_opencompass_result(std::string_view json, std::string_view name) {
  Findings out;
  const auto value = parse(json);
  if (!value || !value->is_object()) return out;
  for (const auto& member : value->get_object())
    if (const auto number = to_number(member.value()))
      add(out, std::string(name) + "/" + std::string(member.key()), *number);
  return out;
}

Findings read_metrics_json(std::string_view json) {
  Findings out;
  const auto value = parse(json);
  if (!value) return out;
  if (value->is_object()) add_all(out, value->get_object(), "", -1);
  if (!value->is_array()) return out;
  for (const auto& item : value->get_array()) {
    if (!item.is_object()) continue;
    const auto& entry = item.get_object();
    const auto* key = entry.if_contains("key");
    const auto* number = entry.if_contains("value");
    if (!key || !key->is_string() || !number) continue;
    if (const auto got = to_number(*number))
      add(out, std::string(key->get_string()), *got, to_step(entry.if_contains("step")).value_or(-1));
  }
  return out;
}

}  // namespace lathe::progress
