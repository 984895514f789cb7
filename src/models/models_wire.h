#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "http/api.h"
#include "http/slice.h"
#include "models/hyper_parameter.h"
#include "models/model_folder.h"

/// What the requests and answers about models look like. `AiApplication` is the documented API's word for a
/// model.
namespace lathe::models::wire {

// --- documented: 3.1 ---------------------------------------------------------------------------------------

struct ApplicationIn {
  std::string name, description, type, developer, create_user, user_name;
  std::optional<std::int64_t> login_user;
};
inline void fields(Fields& f, ApplicationIn& in) {
  f.field("name", in.name, {.doc = "模型名称，同一用户下唯一", .max_length = 128, .form = Form::name});
  f.field("createUser", in.create_user, {.doc = "创建人", .max_length = 64, .form = Form::id});
  f.field("userName", in.user_name, {.doc = "用户名称", .max_length = 64, .form = Form::line});
  f.field("description", in.description, {.doc = "模型简要描述", .max_length = 2000});
  f.field("type", in.type, {.doc = "模型类型", .max_length = 64, .form = Form::line});
  f.field("developer", in.developer, {.doc = "模型厂商", .max_length = 128, .form = Form::line});
  f.field("loginUser", in.login_user, {.doc = "0 为管理员，1 为普通用户", .one_of = "0|1"});
}

struct VersionIn {
  std::string application_name, version, description, create_user, user_name;
  std::optional<std::int64_t> login_user;
  std::int64_t source = 0;
  std::string train_task_version_id, llm_fine_tune_task_id;
  std::string image;
  std::optional<std::int64_t> image_type, framework, framework_style;
  std::int64_t save_type = 2;
  std::string save_path, config_path;
  std::optional<std::int64_t> config_save_type;
  std::string label, scale, model_structure, pre_deploy_label;
};
inline void fields(Fields& f, VersionIn& in) {
  f.field("applicationName", in.application_name,
          {.doc = "AI应用名称", .max_length = 128, .form = Form::name});
  f.field("createUser", in.create_user, {.doc = "创建人", .max_length = 64, .form = Form::id});
  f.field("userName", in.user_name, {.doc = "用户名称", .max_length = 64, .form = Form::line});
  f.field("description", in.description, {.doc = "描述", .max_length = 2000});
  f.field("version", in.version,
          {.doc = "AI应用版本，同一模型下唯一", .required = true, .max_length = 64, .form = Form::id});
  f.field("source", in.source,
          {.doc = "来源，1：从训练结果导入；2：自定义镜像导入；3：从本地文件导入",
           .required = true,
           .one_of = "1|2|3"});
  f.field("trainTaskVersionId", in.train_task_version_id,
          {.doc = "训练版本id", .max_length = 128, .form = Form::id});
  f.field("llmFineTuneTaskId", in.llm_fine_tune_task_id,
          {.doc = "大模型微调id", .max_length = 128, .form = Form::id});
  f.field("image", in.image, {.doc = "镜像地址，source=2 时必填", .form = Form::name});
  f.field("imageType", in.image_type, {.doc = "0：推理框架适配镜像，1：自定义镜像", .one_of = "0|1"});
  f.field("framework", in.framework, {.doc = "框架选择", .min = 0, .max = 1e6});
  f.field("frameworkStyle", in.framework_style, {.doc = "模型格式", .min = 0, .max = 1e6});
  f.field("saveType", in.save_type, {.doc = "存储类别 1.对象存储 2.本地存储", .one_of = "1|2"});
  f.field("savePath", in.save_path,
          {.doc = "存储路径，source=3 时必填，位于用户根目录下", .max_length = 4096, .form = Form::path});
  f.field("configPath", in.config_path,
          {.doc = "配置文件存储路径，位于用户根目录下", .max_length = 4096, .form = Form::path});
  f.field("configSaveType", in.config_save_type,
          {.doc = "配置文件存储类别 1.对象存储 2.本地存储", .one_of = "1|2"});
  f.field("label", in.label, {.doc = "标签", .form = Form::line});
  f.field("scale", in.scale, {.doc = "参数规模，空则从模型文件读取", .max_length = 64, .form = Form::line});
  f.field("modelStructure", in.model_structure,
          {.doc = "模型结构，空则从模型文件读取", .max_length = 128, .form = Form::line});
  f.field("preDeployLabel", in.pre_deploy_label,
          {.doc = "模型预部署时起pod的唯一标识", .max_length = 64, .form = Form::id});
  f.field("loginUser", in.login_user, {.doc = "0 为管理员，1 为普通用户", .one_of = "0|1"});
}

struct CreateIn {
  ApplicationIn application;
  std::vector<VersionIn> versions;
  std::vector<HyperParameter> hyper_parameters;
};
inline void fields(Fields& f, CreateIn& in) {
  f.field("application", in.application);
  f.field("aiApplicationVersionList", in.versions, {.max_items = 100});
  f.field("hyperParameterList", in.hyper_parameters, {.max_items = 500});
}

/// In the order of the document's own example.
struct ApplicationOut {
  std::string id, createUser, name, description;
  std::string createTime, userName, modifiedTime;
  std::int64_t isDelete = 0;
  std::string type, developer;
  std::int64_t loginUser = 1;
  std::int64_t aiApplicationVersionsCount = 0;
  double aiApplicationVersionsSize = 0;
  std::optional<std::string> latestVersion;
  std::optional<std::int64_t> status;
};
inline void fields(Fields& f, ApplicationOut& out) {
  f.field("id", out.id);
  f.field("createUser", out.createUser, {.doc = "创建人"});
  f.field("name", out.name, {.doc = "模型名称"});
  f.field("description", out.description, {.doc = "模型简要描述"});
  f.field("createTime", out.createTime, {.doc = "创建时间"});
  f.field("userName", out.userName, {.doc = "用户名称"});
  f.field("modifiedTime", out.modifiedTime, {.doc = "修改时间"});
  f.field("isDelete", out.isDelete, {.doc = "是否删除 1为已删除 0为未删除"});
  f.field("type", out.type, {.doc = "模型类型"});
  f.field("developer", out.developer, {.doc = "模型厂商"});
  f.field("loginUser", out.loginUser, {.doc = "0 为管理员，1 为普通用户"});
  f.field("aiApplicationVersionsCount", out.aiApplicationVersionsCount, {.doc = "版本数"});
  f.field("aiApplicationVersionsSize", out.aiApplicationVersionsSize, {.doc = "所有版本大小，单位 KB"});
  f.field("latestVersion", out.latestVersion, {.doc = "最新版本"});
  f.field("status", out.status, {.doc = "状态（以最新版本为准）"});
}

struct VersionOut {
  std::string id, createUser, createTime, version;
  std::optional<std::string> metrics, use, softVersion;
  std::string description;
  std::int64_t source = 3;
  std::string image;
  std::optional<std::int64_t> framework, frameworkStyle;
  std::int64_t saveType = 2;
  std::string savePath, trainTaskVersionId, llmFineTuneTaskId;
  std::optional<double> size;
  std::string applicationId, applicationName, userName, modifiedTime;
  std::optional<std::string> hideSourcePath;
  std::int64_t status = 1;
  std::optional<std::string> deployJson;
  std::string label;
  std::optional<std::string> parameters, originalParameters;
  std::int64_t fromMarket = 0;
  std::optional<std::string> configPath;
  std::optional<std::int64_t> configSaveType;
  std::string preDeployLabel;
  std::int64_t parameterStatus = 0;
  std::int64_t isDelete = 0;
  std::string scale;
  std::string hyperParameterList;
  std::string modelStructure;
  std::optional<std::int64_t> imageType;
  std::int64_t loginUser = 1;
  std::optional<std::string> absolutePath;
  // The platform's own
  std::optional<std::string> failReason;
  double progress = 0;
  std::string format, architecture, dtype;
};
inline void fields(Fields& f, VersionOut& out) {
  f.field("id", out.id);
  f.field("createUser", out.createUser, {.doc = "创建人"});
  f.field("createTime", out.createTime, {.doc = "创建时间"});
  f.field("version", out.version, {.doc = "AI应用版本"});
  f.field("metrics", out.metrics, {.doc = "AI应用性能参数（JSON）"});
  f.field("use", out.use);
  f.field("softVersion", out.softVersion, {.doc = "软件及版本"});
  f.field("description", out.description, {.doc = "描述"});
  f.field("source", out.source, {.doc = "来源，1：从训练结果导入；2：自定义镜像导入；3：从本地文件导入"});
  f.field("image", out.image, {.doc = "镜像地址"});
  f.field("framework", out.framework, {.doc = "框架选择"});
  f.field("frameworkStyle", out.frameworkStyle, {.doc = "模型格式"});
  f.field("saveType", out.saveType, {.doc = "存储类别 1.对象存储 2.本地存储"});
  f.field("savePath", out.savePath, {.doc = "存储路径"});
  f.field("trainTaskVersionId", out.trainTaskVersionId, {.doc = "训练版本id"});
  f.field("llmFineTuneTaskId", out.llmFineTuneTaskId, {.doc = "大模型微调id"});
  f.field("size", out.size, {.doc = "大小，单位 KB；尚未统计时为 null"});
  f.field("applicationId", out.applicationId, {.doc = "AI应用id"});
  f.field("applicationName", out.applicationName, {.doc = "AI应用名称"});
  f.field("userName", out.userName, {.doc = "用户名称"});
  f.field("modifiedTime", out.modifiedTime, {.doc = "修改时间"});
  f.field("hideSourcePath", out.hideSourcePath, {.doc = "平台保存的路径；镜像来源为 null"});
  f.field("status", out.status, {.doc = "1 导入中 2 导入完成 3 导入失败"});
  f.field("deployJson", out.deployJson, {.doc = "deploy.json 内容"});
  f.field("label", out.label, {.doc = "标签"});
  f.field("parameters", out.parameters, {.doc = "从模型文件读出的参数（JSON）"});
  f.field("originalParameters", out.originalParameters, {.doc = "config.json 原文"});
  f.field("fromMarket", out.fromMarket, {.doc = "是否 model 市场导入"});
  f.field("configPath", out.configPath, {.doc = "配置文件存储路径"});
  f.field("configSaveType", out.configSaveType, {.doc = "配置文件存储类别 1.对象存储 2.本地存储"});
  f.field("preDeployLabel", out.preDeployLabel, {.doc = "模型预部署时起pod的唯一标识"});
  f.field("parameterStatus", out.parameterStatus, {.doc = "0：未获取，1：获取中，2：获取完成"});
  f.field("isDelete", out.isDelete, {.doc = "是否删除 1为已删除 0为未删除"});
  f.field("scale", out.scale, {.doc = "参数规模"});
  f.field("hyperParameterList", out.hyperParameterList, {.doc = "超参信息（JSON）"});
  f.field("modelStructure", out.modelStructure, {.doc = "模型结构"});
  f.field("imageType", out.imageType, {.doc = "0：推理框架适配镜像，1：自定义镜像"});
  f.field("loginUser", out.loginUser, {.doc = "0 为管理员，1 为普通用户"});
  f.field("absolutePath", out.absolutePath, {.doc = "服务器上的绝对路径；导入完成前为 null"});
  f.field("failReason", out.failReason, {.doc = "导入失败的原因"});
  f.field("progress", out.progress, {.doc = "导入进度，0 到 100"});
  f.field("format", out.format, {.doc = "safetensors、gguf、pytorch、adapter、config …"});
  f.field("architecture", out.architecture);
  f.field("dtype", out.dtype);
}

struct CreateOut {
  ApplicationOut application;
  std::vector<VersionOut> versions;
  std::vector<HyperParameter> hyper_parameters;
};
inline void fields(Fields& f, CreateOut& out) {
  f.field("application", out.application);
  f.field("aiApplicationVersionList", out.versions);
  f.field("hyperParameterList", out.hyper_parameters);
}

// --- documented: 3.2 to 3.5 --------------------------------------------------------------------------------

struct QueryInfo {
  std::string name, type, create_user;
};
inline void fields(Fields& f, QueryInfo& q) {
  f.field("name", q.name, {.doc = "名称的一部分", .max_length = 128});
  f.field("type", q.type, {.doc = "模型类型", .max_length = 64});
  f.field("createUser", q.create_user, {.doc = "创建人", .max_length = 64, .form = Form::id});
}

struct ListIn : http::PageQuery {
  QueryInfo query;
};
inline void fields(Fields& f, ListIn& in) {
  fields(f, static_cast<http::PageQuery&>(in));
  f.field("queryInfo", in.query);
}

struct ApplicationRef {
  std::string id;
};
inline void fields(Fields& f, ApplicationRef& in) {
  f.field("aiApplicationId", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct VersionRef {
  std::string id;
};
inline void fields(Fields& f, VersionRef& in) {
  f.field("aiApplicationVersionId", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

/// 3.5: the version, and the model it is of.
struct VersionDetail : VersionOut {
  ApplicationOut application;
};
inline void fields(Fields& f, VersionDetail& out) {
  fields(f, static_cast<VersionOut&>(out));
  f.field("application", out.application);
}

// --- the project's own API ---------------------------------------------------------------------------------

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct ModelsIn : http::SliceQuery {
  std::string user_id, name, type;
};
inline void fields(Fields& f, ModelsIn& in) {
  fields(f, static_cast<http::SliceQuery&>(in));
  f.field(
      "userId", in.user_id,
      {.doc = "Whose; absent: one's own, an administrator's everyone's", .max_length = 64, .form = Form::id});
  f.field("name", in.name, {.doc = "Part of the name", .max_length = 128});
  f.field("type", in.type, {.max_length = 64});
}

struct VersionsIn : http::SliceQuery {
  std::string id;
};
inline void fields(Fields& f, VersionsIn& in) {
  fields(f, static_cast<http::SliceQuery&>(in));
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct ModelPatch {
  std::string id;
  std::optional<std::string> name, description, type, developer;
  std::optional<std::vector<HyperParameter>> hyper_parameters;
};
inline void fields(Fields& f, ModelPatch& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
  f.field("name", in.name, {.doc = "Unique among the user's models", .max_length = 128, .form = Form::name});
  f.field("description", in.description, {.max_length = 2000});
  f.field("type", in.type, {.max_length = 64, .form = Form::line});
  f.field("developer", in.developer, {.max_length = 128, .form = Form::line});
  f.field("hyperParameters", in.hyper_parameters, {.doc = "Replaces the template", .max_items = 500});
}

struct VersionPatch {
  std::string id;
  std::optional<std::string> description, label;
};
inline void fields(Fields& f, VersionPatch& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
  f.field("description", in.description, {.max_length = 2000});
  f.field("label", in.label, {.form = Form::line});
}

struct LatestOut {
  std::string id, version, state;
};
inline void fields(Fields& f, LatestOut& out) {
  f.field("id", out.id);
  f.field("version", out.version);
  f.field("state", out.state, {.one_of = "importing|ready|failed"});
}

struct ModelOut {
  std::string id, userId, userName, name, description, type, developer;
  std::int64_t versionCount = 0, sizeBytes = 0;
  std::optional<LatestOut> latestVersion;
  std::vector<HyperParameter> hyperParameters;
  Time createdAt{}, updatedAt{};
};
inline void fields(Fields& f, ModelOut& out) {
  f.field("id", out.id);
  f.field("userId", out.userId);
  f.field("userName", out.userName);
  f.field("name", out.name);
  f.field("description", out.description);
  f.field("type", out.type);
  f.field("developer", out.developer);
  f.field("versionCount", out.versionCount);
  f.field("sizeBytes", out.sizeBytes, {.doc = "Of all versions"});
  f.field("latestVersion", out.latestVersion);
  f.field("hyperParameters", out.hyperParameters, {.doc = "The model's template of hyper-parameters"});
  f.field("createdAt", out.createdAt);
  f.field("updatedAt", out.updatedAt);
}

struct ModelVersionOut {
  std::string id, modelId, modelName, userId, userName, version, description, label;
  std::string source, state;
  std::optional<std::string> failure;
  double progress = 0;
  std::optional<std::int64_t> sizeBytes;
  std::string scale, structure;
  std::optional<std::string> image, path, savePath, trainingOutput;
  ModelDetails details;
  std::vector<HyperParameter> hyperParameters;
  Time createdAt{}, updatedAt{};
  std::optional<Time> endedAt;
};
inline void fields(Fields& f, ModelVersionOut& out) {
  f.field("id", out.id);
  f.field("modelId", out.modelId);
  f.field("modelName", out.modelName);
  f.field("userId", out.userId);
  f.field("userName", out.userName);
  f.field("version", out.version);
  f.field("description", out.description);
  f.field("label", out.label);
  f.field("source", out.source, {.one_of = "training|image|path"});
  f.field("state", out.state, {.one_of = "importing|ready|failed"});
  f.field("failure", out.failure, {.doc = "Why the import failed"});
  f.field("progress", out.progress, {.doc = "Of the import, 0 to 1"});
  f.field("sizeBytes", out.sizeBytes, {.doc = "null while it is not known"});
  f.field("scale", out.scale, {.doc = "How many parameters, for people: 7B"});
  f.field("structure", out.structure);
  f.field("image", out.image);
  f.field("path", out.path, {.doc = "Beneath the platform's data directory"});
  f.field("savePath", out.savePath, {.doc = "Where the files were taken from"});
  f.field("trainingOutput", out.trainingOutput, {.doc = "The job or checkpoint they were taken from"});
  f.field("details", out.details, {.doc = "What the files say"});
  f.field("hyperParameters", out.hyperParameters);
  f.field("createdAt", out.createdAt);
  f.field("updatedAt", out.updatedAt);
  f.field("endedAt", out.endedAt, {.doc = "When the import ended"});
}

}  // namespace lathe::models::wire
