#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jobs/job.h"
#include "jobs/jobs_wire.h"
#include "jobs/problems.h"

/// A creation request in the platform's own words: read, but not looked up yet. Pure.
namespace lathe::jobs {

/// What the fields are called in the request that the draft comes from, for errors.
struct FieldNames {
  std::string_view work, model_dir, model_version, input_dir, output, checkpoint, dataset_id, dataset_name,
      dataset_version, group_id, group_key, group_name, environment, resource, image, command;
};
extern const FieldNames kTaskFields;        ///< 4.1, 5.1, 6.1
extern const FieldNames kEvaluationFields;  ///< 7.1

struct Draft {
  JobKind kind = JobKind::modelling;
  const FieldNames* names = &kTaskFields;
  std::string name;  ///< "": one is made up
  std::string description;
  std::string user_id, user_name;  ///< as the request has them: to be checked, not believed
  std::string group_id, group_key, group_name;
  std::string image, framework, command, algorithm_id, strategy, profile_path;
  std::vector<HyperParameter> common_parameters, tuning_parameters;
  std::vector<EnvironmentVariable> environment;
  std::string work_dir, model_dir, model_version_id, input_dir, output_dir, checkpoint_dir;
  bool input_is_dataset = false;
  std::string dataset_id, dataset_name, dataset_version_id;
  std::vector<RankGroup> groups;
  std::vector<std::string> nodes;
  int priority = 0;
  bool urgent = false;
  bool rdma = false;
  std::string rdma_resource;
  std::int64_t time_limit_s = 0;
};

/// 4.1 and 5.1 (by isPretrain), or 6.1 where `kind` is modelling.
Draft draft_of(const CreateTask& task, JobKind kind, Problems& problems);
Draft draft_of(const CreateEvaluation& evaluation, Problems& problems);

/// The documented config.json (`profilePath`).
struct Profile {
  std::vector<NamedValue> commonHyperParameters, fineTuneHyperParameters;
  std::string fineTuneStrategy;
};
void fields(Fields& f, Profile& profile);

/// Puts the file's parameters and strategy beneath the draft's own, which win.
void add_profile(Draft& draft, const Profile& profile, Problems& problems);

/// `hyperparameter`: a JSON object, a JSON list of {name, value}, or `--name value` and `name=value` words.
std::vector<HyperParameter> parse_hyperparameter(std::string_view text, std::string_view field,
                                                 Problems& problems);

/// `variable` and `env`: each item is {name, value}, {key, value} or {VARIABLE: value, …}.
std::vector<EnvironmentVariable> read_variables(const std::vector<Json>& items, std::string_view field,
                                                Problems& problems);

}  // namespace lathe::jobs
