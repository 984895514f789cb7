#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

/// What trainers and evaluators say of themselves, read without changing them. Pure: text in, numbers out.
/// Whatever is malformed is passed over: a user's output is never an error of the platform's.
namespace lathe::progress {

/// MLflow's shape. `step` is -1 where the source names none (a final result).
struct Metric {
  std::string key;
  double value = 0;
  std::int64_t step = -1;
  std::optional<Time> time;  ///< absent: when it was read
  bool operator==(const Metric&) const = default;
};

struct Findings {
  std::vector<Metric> metrics;
  std::optional<std::int64_t> step, total_steps;
  std::optional<double> fraction;  ///< 0 … 1, as the trainer itself says
  void merge(Findings other);
};

/// A line of a log: a Python dict as the Hugging Face Trainer prints it, the same as JSON, a tqdm bar
/// (`12%|█▏ | 48/400 [00:02<…`), or `key=value`/`key: value` lists that name a step or an epoch. Colours and
/// carriage returns are seen through. `last_step` gives dicts that name no step the one of the bar before.
Findings read_log_line(std::string_view line, std::optional<std::int64_t> last_step = {});

/// Hugging Face `trainer_state.json`.
Findings read_trainer_state(std::string_view json);

/// One line of LLaMA-Factory's `trainer_log.jsonl`.
Findings read_trainer_log_line(std::string_view json);

/// lm-evaluation-harness `results_*.json`: `results.<task>."metric,filter"` becomes `<task>/metric` (and
/// `<task>/metric,filter` for filters other than none).
Findings read_lm_eval(std::string_view json);

/// OpenCompass `summary/*.csv`: dataset,version,metric,mode,<model>… becomes `<dataset>/<metric>` (with
/// `<model>/` before it where there are several).
Findings read_opencompass_summary(std::string_view csv);

/// OpenCompass `results/<model>/<dataset>.json`; `name` is the dataset.
Findings read_opencompass_result(std::string_view json, std::string_view name);

/// A plain `metrics.json`: an object of numbers (nested objects become `a/b`), or a list of objects with key,
/// value and perhaps step.
Findings read_metrics_json(std::string_view json);

/// TensorBoard event files (TFRecord frames of Event messages, scalars only). `consumed` is the length of the
/// whole records read, so that a growing file can be read on from there.
Findings read_event_file(std::string_view bytes, std::size_t& consumed);

}  // namespace lathe::progress
