#include "jobs/places.h"

#include <fmt/format.h>

#include "base/text_form.h"

namespace lathe::jobs {

namespace {

bool is_there(const JobDirectory& directory) {
  return directory.source != JobDirectory::Source::none;
}

}  // namespace

std::string_view start_dir(const JobSpec& spec) {
  return is_there(spec.work) ? kCodeDir : kOutputDir;
}

std::vector<Placeholder> place_names(const JobSpec& spec) {
  std::vector<Placeholder> out;
  const auto add = [&](const char* name, const JobDirectory& directory, std::string_view target) {
    if (is_there(directory)) out.push_back({name, std::string(target)});
  };
  add("model_dir", spec.model, kModelDir);
  add("input_dir", spec.input, kInputDir);
  add("output_dir", spec.output, kOutputDir);
  add("checkpoint_dir", spec.checkpoint, kCheckpointDir);
  out.push_back({"work_dir", std::string(start_dir(spec))});
  if (!spec.algorithm_id.empty()) out.push_back({"algorithm_dir", std::string(kAlgorithmDir)});
  if (!spec.strategy.empty()) out.push_back({"fine_tune_strategy", spec.strategy});
  return out;
}

std::vector<Placeholder> placeholders(const JobSpec& spec) {
  std::vector<Placeholder> out;
  for (const auto* list : {&spec.common_parameters, &spec.tuning_parameters})
    for (const auto& each : *list) out.push_back({each.name, each.value});
  for (auto& each : place_names(spec)) out.push_back(std::move(each));
  return out;
}

std::string default_directory(std::string_view job_name, std::string_view job_id, std::string_view leaf) {
  std::string folder;
  for (const char c : job_name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || static_cast<unsigned char>(c) >= 0x80;
    folder += plain ? c : '-';
  }
  // The last digits of an id are random, the first ones are the time.
  const auto tail = job_id.size() > 8 ? job_id.substr(job_id.size() - 8) : job_id;
  constexpr std::size_t kLongest = 200;  // a component holds 255 bytes
  if (folder.size() > kLongest) {
    folder.resize(kLongest);
    while (!folder.empty() && !count_code_points(folder)) folder.pop_back();
  }
  if (folder.starts_with('.')) folder.insert(0, 1, '-');
  return fmt::format("jobs/{}-{}/{}", folder, tail, leaf);
}

Result<PreparedCommand> prepare(const JobSpec& spec, std::string_view field) {
  std::vector<std::string> environment;
  for (const auto& each : spec.environment) environment.push_back(each.name);
  const auto known = placeholders(spec);
  return prepare_command(spec.command, known, environment, field);
}

}  // namespace lathe::jobs
