#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/job.h"
#include "jobs/plan/command.h"

/// Where a job finds its directories: the same paths in every job and on every engine.
namespace lathe::jobs {

inline constexpr std::string_view kCodeDir = "/workspace/code";
inline constexpr std::string_view kModelDir = "/workspace/model";
inline constexpr std::string_view kInputDir = "/workspace/input";
inline constexpr std::string_view kOutputDir = "/workspace/output";
inline constexpr std::string_view kCheckpointDir = "/workspace/checkpoint";
inline constexpr std::string_view kAlgorithmDir = "/workspace/algorithm";

/// Where its command begins: its code, or else its output.
std::string_view start_dir(const JobSpec& spec);

/// `model_dir`, `input_dir`, … of those that the job has, and `fine_tune_strategy`.
std::vector<Placeholder> place_names(const JobSpec& spec);
/// Those and the hyper-parameters, which come first: what `${…}` in a command may name.
std::vector<Placeholder> placeholders(const JobSpec& spec);

/// The directories where nothing else is asked for, below the user's root: `jobs/NAME-1a2b3c4d/output`.
std::string default_directory(std::string_view job_name, std::string_view job_id, std::string_view leaf);

/// Checks the command at creation: the same that the launch will do.
Result<PreparedCommand> prepare(const JobSpec& spec, std::string_view field);

}  // namespace lathe::jobs
