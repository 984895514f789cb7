#include "jobs/jobs_wire.h"

#include <boost/json.hpp>

namespace lathe::jobs {

namespace {

constexpr Rule kPath{.max_length = 4096, .form = Form::path};
constexpr Rule kName{.form = Form::name};
constexpr Rule kId{.max_length = 64, .form = Form::id};
constexpr Rule kLine{.form = Form::line};

constexpr Rule kTimeLimit{.doc = "运行时间上限，秒，0 为不限（本平台的扩充）", .min = 0, .max = 1e8};

constexpr Rule path(std::string_view doc) {
  return {.doc = doc, .max_length = 4096, .form = Form::path};
}
constexpr Rule id(std::string_view doc) {
  return {.doc = doc, .max_length = 64, .form = Form::id};
}
constexpr Rule title(std::string_view doc) {
  return {.doc = doc, .max_length = 128, .form = Form::name};
}
constexpr Rule line(std::string_view doc) {
  return {.doc = doc, .form = Form::line};
}
constexpr Rule text(std::string_view doc) {
  return {.doc = doc, .max_length = 65536};
}

}  // namespace

void fields(Fields& f, GpuResource& gpu) {
  f.field("gpuCores", gpu.gpuCores, {.doc = "每份 GPU 的算力百分比（vgpu）", .min = 0, .max = 100});
  f.field("gpuMem", gpu.gpuMem, {.doc = "每份 GPU 的显存，GB（vgpu）", .min = 0, .max = 4096});
  f.field("gpuNum", gpu.gpuNum, {.doc = "GPU 数量", .min = 0, .max = 1024});
  f.field("gpuShare", gpu.gpuShare, {.doc = "GPU 共享模式", .one_of = "none|vgpu|mig"});
  f.field("migRes", gpu.migRes, {.doc = "MIG 切片规格，如 1g.10gb", .max_length = 64, .form = Form::name});
}

void fields(Fields& f, NodeResource& resource) {
  f.field("cpuNumber", resource.cpuNumber, {.doc = "CPU 核数，0 视为 1", .min = 0, .max = 4096});
  f.field("gpuResource", resource.gpuResource);
  f.field("memory", resource.memory, {.doc = "内存，GB，0 视为 1", .min = 0, .max = 65536});
  f.field("nodeType", resource.nodeType, {.doc = "节点类型", .one_of = "master|worker"});
  f.field("numbers", resource.numbers, {.doc = "节点数量，0 视为 1", .min = 0, .max = 256});
}

void fields(Fields& f, NamedValue& parameter) {
  f.field("description", parameter.description, text("超参数描述"));
  f.field("name", parameter.name, {.doc = "超参数名称", .max_length = 128, .form = Form::option});
  f.field("value", parameter.value, text("超参数值"));
}

void fields(Fields& f, CreateTask& t) {
  f.field("algorithmId", t.algorithmId, id("预置算法ID"));
  f.field("checkPointDir", t.checkPointDir, path("checkPoint保存目录"));
  f.field("command", t.command, text("运行命令"));
  f.field("commands", t.commands, {.doc = "运行命令，逐词给出；command 为空时使用", .max_length = 65536});
  f.field("commonHyperParameters", t.commonHyperParameters, {.doc = "通用超参数"});
  f.field("createWay", t.createWay,
          {.doc = "创建方式(custom：自定义，system：预置)", .one_of = "custom|system"});
  f.field("dataSetName", t.dataSetName, title("数据集名称"));
  f.field("datasetVersionId", t.datasetVersionId, id("数据集版本id"));
  f.field("describe", t.describe, text("任务描述"));
  f.field("devices", t.devices, kLine);
  f.field("fineTuneHyperParameters", t.fineTuneHyperParameters, {.doc = "微调超参数"});
  f.field("fineTuneStrategy", t.fineTuneStrategy, title("微调策略：LoRA / FineTune"));
  f.field("hyperparameter", t.hyperparameter, text("超参数：JSON 对象或列表，或 --name value"));
  f.field("image", t.image, {.doc = "镜像；空为 host，即本机软件", .max_length = 512, .form = Form::name});
  f.field("inputDir", t.inputDir, path("数据集输入目录"));
  f.field("inputType", t.inputType, {.doc = "数据集类型", .one_of = "local|dataset"});
  f.field("isPretrain", t.isPretrain, {.doc = "0 调优，1 预训练", .min = 0, .max = 1});
  f.field("isUrgentTask", t.isUrgentTask, {.doc = "是否紧急任务", .one_of = "true|false|0|1|yes|no|是|否"});
  f.field("jobName", t.jobName, title("任务名称的别名"));
  f.field("llmTrainFramework", t.llmTrainFramework, line("大模型训练基础框架类型"));
  f.field("modelId", t.modelId, id("模型ID"));
  f.field("modelVersion", t.modelVersion, title("模型版本"));
  f.field("modelVersionId", t.modelVersionId, id("模型版本ID"));
  f.field("mpiCommand", t.mpiCommand, text("MPI 运行命令"));
  f.field("name", t.name, title("任务名称；空则自动生成"));
  f.field("nodeName", t.nodeName, {.doc = "指定节点", .max_items = 256, .form = Form::name});
  f.field("originModelDir", t.originModelDir, path("原始模型目录"));
  f.field("outputDir", t.outputDir, path("训练模型输出目录"));
  f.field("podDelete", t.podDelete, {.min = 0, .max = 1});
  f.field("priority", t.priority, line("优先级：-100 到 100，或 low、normal、high"));
  f.field("profilePath", t.profilePath, path("用户自定义配置文件 config.json"));
  f.field("rdma", t.rdma, {.doc = "是否开启高性能网络"});
  f.field("resource", t.resource, {.doc = "用户选择的资源配置", .max_items = 64});
  f.field("resourceGroupKey", t.resourceGroupKey, id("资源组key"));
  f.field("resourceName", t.resourceName, title("rdma资源名称"));
  f.field("resourceType", t.resourceType, line("运行模式 标准模式 / 进阶模式"));
  f.field("storageMedium", t.storageMedium, {.doc = "数据集类型", .one_of = "1201|1203"});
  f.field("type", t.type, {.doc = "任务类型", .one_of = "TensorFlow|PyTorch|scikit-learn|MPI"});
  f.field("userId", t.userId, kId);
  f.field("userName", t.userName, kName);
  f.field("variable", t.variable, {.doc = "环境变量：{name, value} 或 {变量名: 值}"});
  f.field("workingDir", t.workingDir, path("脚本工作目录"));
  f.field("zoneId", t.zoneId, id("资源组ID"));
  f.field("zoneName", t.zoneName, title("资源组名"));
  f.field("timeLimit", t.timeLimit, kTimeLimit);
}

CreateTask CreateTaskRequest::task() && {
  if (!createTaskBO) return std::move(flat);
  CreateTask out = std::move(*createTaskBO);
  if (out.commonHyperParameters.empty()) out.commonHyperParameters = std::move(flat.commonHyperParameters);
  if (out.fineTuneHyperParameters.empty())
    out.fineTuneHyperParameters = std::move(flat.fineTuneHyperParameters);
  return out;
}

void fields(Fields& f, CreateTaskRequest& request) {
  fields(f, request.flat);
  f.field("createTaskBO", request.createTaskBO, {.doc = "同样的字段也可放在这个对象里"});
}

void fields(Fields& f, EvaluationResource& resource) {
  f.field("cpuNumber", resource.cpuNumber, {.doc = "CPU 核数，0 视为 1", .min = 0, .max = 4096});
  f.field("memory", resource.memory, {.doc = "内存，GB，0 视为 1", .min = 0, .max = 65536});
  f.field("gpuResource", resource.gpuResource);
}

void fields(Fields& f, CreateEvaluation& e) {
  f.field("userId", e.userId, kId);
  f.field("name", e.name, {.doc = "模型评估任务名", .required = true, .max_length = 128, .form = Form::name});
  f.field("resourceGroupId", e.resourceGroupId, id("资源组Id；三者皆空为 default"));
  f.field("resourceGroupName", e.resourceGroupName, title("资源组名称"));
  f.field("resourceGroupKey", e.resourceGroupKey, id("资源组key"));
  f.field("image", e.image, {.doc = "镜像", .required = true, .max_length = 512, .form = Form::name});
  f.field("command", e.command, {.doc = "运行命令", .required = true, .max_length = 65536});
  f.field("inputType", e.inputType, {.doc = "数据集来源", .one_of = "local|dataset"});
  f.field("inputDir", e.inputDir, path("数据集路径"));
  f.field("storageMedium", e.storageMedium, {.doc = "数据集类型", .one_of = "1201|1203"});
  f.field("datasetId", e.datasetId, id("数据集Id"));
  f.field("datasetName", e.datasetName, title("数据集名字"));
  f.field("modelType", e.modelType, {.doc = "模型来源", .one_of = "local|aiApp"});
  f.field("modelDir", e.modelDir, path("模型输入路径"));
  f.field("aiAppVersionId", e.aiAppVersionId, id("AI应用版本ID"));
  f.field("aiAppVersionName", e.aiAppVersionName, title("AI应用名称、版本信息"));
  f.field("outputDir", e.outputDir,
          {.doc = "模型评估结果输出目录", .required = true, .max_length = 4096, .form = Form::path});
  f.field("workDir", e.workDir, path("评估脚本py文件所在目录"));
  f.field("resource", e.resource, {.doc = "模型评估资源申请", .required = true});
  f.embedded("env", e.env, {.doc = "环境变量"});
  f.field("description", e.description, text("描述信息"));
  f.field("timeLimit", e.timeLimit, kTimeLimit);
}

void fields(Fields& f, CreatedTask& created) {
  f.field("id", created.id);
  f.field("taskId", created.taskId);
}

void fields(Fields& f, TaskStatus& s) {
  f.field("status", s.status, {.doc = "Pending、Running、Succeeded、Failed、Stopped"});
  f.field("statusReason", s.statusReason, {.doc = "原因，如 WaitingForQuota、ExitCode 7"});
  f.field("statusMessage", s.statusMessage, text("原因说明"));
  f.field("progress", s.progress, {.doc = "0 到 1"});
  f.field("createTime", s.createTime);
  f.field("startTime", s.startTime);
  f.field("endTime", s.endTime);
  f.field("runTime", s.runTime, {.doc = "如 54分41秒"});
}

void fields(Fields& f, TaskRow& row) {
  f.field("id", row.id);
  f.field("taskId", row.taskId);
  f.field("name", row.name);
  f.field("jobName", row.jobName);
  f.field("describe", row.describe, kPath);
  f.field("userId", row.userId);
  f.field("userName", row.userName);
  f.field("isPretrain", row.isPretrain);
  fields(f, row.status);
}

void fields(Fields& f, TaskDetail& detail) {
  f.field("id", detail.id);
  f.field("taskId", detail.taskId);
  fields(f, detail.request);
  fields(f, detail.status);
}

void fields(Fields& f, CheckpointRow& row) {
  f.field("id", row.id);
  f.field("name", row.name);
  f.field("path", row.path, kPath);
  f.field("step", row.step);
  f.field("size", row.size, {.doc = "KB"});
  f.field("createTime", row.createTime);
}

void fields(Fields& f, RegisteredModel& model) {
  f.field("modelId", model.modelId);
  f.field("modelName", model.modelName);
  f.field("modelVersion", model.modelVersion);
  f.field("modelVersionId", model.modelVersionId);
}

void fields(Fields& f, ManagedTaskRow& row) {
  fields(f, row.task);
  f.field("fineTuneStrategy", row.fineTuneStrategy);
  f.field("outputDir", row.outputDir, kPath);
  f.field("checkPointDir", row.checkPointDir, kPath);
  f.field("checkpoints", row.checkpoints);
  f.field("model", row.model, {.doc = "训练完成的模型"});
  f.field("registered", row.registered, {.doc = "是否已导入模型管理"});
  f.field("models", row.models, {.doc = "导入成的模型版本"});
}

void fields(Fields& f, EvaluationRow& row) {
  f.field("id", row.id);
  f.field("name", row.name);
  f.field("status", row.status);
  f.field("runTime", row.runTime);
  f.field("description", row.description);
  f.field("creatorId", row.creatorId);
  f.field("createTime", row.createTime);
}

void fields(Fields& f, EvaluationDetail& detail) {
  f.field("id", detail.id);
  fields(f, detail.request);
  fields(f, detail.status);
}

void fields(Fields& f, TaskListRequest& request) {
  f.field("isPretrain", request.isPretrain, {.doc = "0 调优，1 预训练，空为全部", .min = 0, .max = 1});
  fields(f, request.page);
  f.field("status", request.status, {.doc = "任务状态，空为全部", .max_length = 32, .form = Form::line});
  f.field("taskName", request.taskName, {.doc = "任务名包含的文字", .max_length = 128, .form = Form::line});
  f.field("userId", request.userId, kId);
  f.field("userName", request.userName, kName);
}

void fields(Fields& f, TaskIdRequest& request) {
  f.field("taskId", request.taskId, {.doc = "任务ID", .required = true, .max_length = 64, .form = Form::id});
}

}  // namespace lathe::jobs
