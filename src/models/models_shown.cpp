#include <algorithm>

#include "base/json.h"
#include "models/models_service.h"

/// How rows become answers.
namespace lathe::models {

namespace {

double kilobytes(std::int64_t bytes) {
  return static_cast<double>(bytes) / 1024;
}

std::optional<std::string> unless_empty(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional(text);
}

std::int64_t number_of(const std::string& state) {
  for (const State candidate : {State::importing, State::ready})
    if (name(candidate) == state) return documented_status(candidate);
  return documented_status(State::failed);
}

bool is(const store::VersionRow& row, State state) {
  return row.state == name(state);
}

double import_progress(const store::VersionRow& row, const Importer& importer) {
  if (is(row, State::ready)) return 1;
  return is(row, State::importing) ? importer.progress(row.id).value_or(0) : 0;
}

std::optional<std::string> failure(const store::VersionRow& row, Language language) {
  if (!is(row, State::failed)) return std::nullopt;
  return language == Language::zh ? row.failure_zh : row.failure_en;
}

/// Has anything been read from the files?
std::int64_t parameter_status(const store::VersionRow& row) {
  if (is(row, State::importing) && !row.folder.empty()) return 1;
  return row.details.format.empty() && row.config_text.empty() ? 0 : 2;
}

std::string_view source_word(std::int64_t source) {
  switch (static_cast<Source>(source)) {
    case Source::training:
      return "training";
    case Source::image:
      return "image";
    case Source::path:
      break;
  }
  return "path";
}

}  // namespace

std::int64_t Service::login_user(std::string_view user_id) {
  const auto user = accounts_.user(user_id);
  return user.ok() && user->admin ? 0 : 1;
}

wire::ApplicationOut Service::application(const store::ModelRow& row, const store::Summary* summary) {
  wire::ApplicationOut out;
  out.id = row.id;
  out.createUser = row.user_id;
  out.name = row.name;
  out.description = row.description;
  out.createTime = format_local(row.created_at);
  out.userName = accounts_.name_of(row.user_id);
  out.modifiedTime = format_local(row.updated_at);
  out.type = row.type;
  out.developer = row.developer;
  if (summary) {
    out.aiApplicationVersionsCount = summary->versions;
    out.aiApplicationVersionsSize = kilobytes(summary->size_bytes);
    out.latestVersion = summary->latest_version;
    out.status = number_of(summary->latest_state);
  }
  return out;
}

wire::VersionOut Service::documented(const store::ModelRow& model, const store::VersionRow& row,
                                     Language language) {
  wire::VersionOut out;
  out.id = row.id;
  out.createUser = row.user_id;
  out.createTime = format_local(row.created_at);
  out.version = row.version;
  out.metrics = unless_empty(row.metrics);
  if (row.details.transformersVersion) out.softVersion = "transformers " + *row.details.transformersVersion;
  out.description = row.description;
  out.source = row.source;
  out.image = row.image;
  out.framework = row.framework;
  out.frameworkStyle = row.framework_style;
  out.saveType = row.save_type;
  out.savePath = row.save_path;
  out.trainTaskVersionId = row.train_task_version_id;
  out.llmFineTuneTaskId = row.llm_fine_tune_task_id;
  if (row.size_bytes) out.size = kilobytes(*row.size_bytes);
  out.applicationId = row.model_id;
  out.applicationName = model.name;
  out.userName = accounts_.name_of(row.user_id);
  out.modifiedTime = format_local(row.updated_at);
  if (!row.folder.empty()) out.hideSourcePath = "/models/" + row.folder;
  out.status = number_of(row.state);
  out.deployJson = unless_empty(row.deploy_text);
  out.label = row.label;
  if (!row.details.format.empty()) out.parameters = json::write(row.details);
  out.originalParameters = unless_empty(row.config_text);
  out.configPath = unless_empty(row.config_path);
  out.configSaveType = row.config_save_type;
  out.preDeployLabel = row.pre_deploy_label;
  out.parameterStatus = parameter_status(row);
  out.scale = row.scale;
  out.hyperParameterList = json::write(row.hyper_parameters);
  out.modelStructure = row.model_structure;
  out.imageType = row.image_type;
  if (is(row, State::ready) && !row.folder.empty()) out.absolutePath = importer_->folder() + "/" + row.folder;
  out.failReason = failure(row, language);
  out.progress = import_progress(row, *importer_) * 100;
  out.format = row.details.format;
  out.architecture = row.details.architecture;
  out.dtype = row.details.dtype;
  return out;
}

wire::ModelOut Service::shown(const store::ModelRow& row, const store::Summary* summary) {
  wire::ModelOut out;
  out.id = row.id;
  out.userId = row.user_id;
  out.userName = accounts_.name_of(row.user_id);
  out.name = row.name;
  out.description = row.description;
  out.type = row.type;
  out.developer = row.developer;
  if (summary) {
    out.versionCount = summary->versions;
    out.sizeBytes = summary->size_bytes;
    out.latestVersion = wire::LatestOut{summary->latest_id, summary->latest_version, summary->latest_state};
  }
  out.hyperParameters = row.hyper_parameters;
  out.createdAt = row.created_at;
  out.updatedAt = row.updated_at;
  return out;
}

wire::ModelVersionOut Service::shown(const store::ModelRow& model, const store::VersionRow& row,
                                     Language language) {
  wire::ModelVersionOut out;
  out.id = row.id;
  out.modelId = row.model_id;
  out.modelName = model.name;
  out.userId = row.user_id;
  out.userName = accounts_.name_of(row.user_id);
  out.version = row.version;
  out.description = row.description;
  out.label = row.label;
  out.source = source_word(row.source);
  out.state = row.state;
  out.failure = failure(row, language);
  out.progress = import_progress(row, *importer_);
  out.sizeBytes = row.size_bytes;
  out.scale = row.scale;
  out.structure = row.model_structure;
  out.image = unless_empty(row.image);
  if (!row.folder.empty()) out.path = "models/" + row.folder;
  out.savePath = unless_empty(row.save_path);
  out.trainingOutput = unless_empty(row.training_output);
  out.details = row.details;
  out.hyperParameters = row.hyper_parameters;
  out.createdAt = row.created_at;
  out.updatedAt = row.updated_at;
  out.endedAt = row.ended_at;
  return out;
}

}  // namespace lathe::models
