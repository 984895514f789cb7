#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "http/api.h"
#include "jobs/job.h"

/// The documented calls of sections 4 to 7, field by field, and the project's own job API. Legacy names live
/// here and nowhere else.
namespace lathe::jobs {

// ---- 4.1, 5.1, 6.1 ---------------------------------------------------------------------------------------

struct GpuResource {
  std::optional<std::int64_t> gpuCores, gpuMem, gpuNum;
  std::string gpuShare;
  std::string migRes;
};
void fields(Fields& f, GpuResource& gpu);

struct NodeResource {
  std::int64_t cpuNumber = 0;
  std::optional<GpuResource> gpuResource;
  std::int64_t memory = 0;
  std::string nodeType;
  std::int64_t numbers = 0;
};
void fields(Fields& f, NodeResource& resource);

struct NamedValue {
  std::string description;
  std::string name;
  std::string value;
};
void fields(Fields& f, NamedValue& parameter);

/// Every documented field of a tuning, pre-training or modelling task. None is required by itself: which ones
/// are needed depends on the others, see draft.h.
struct CreateTask {
  std::string algorithmId, checkPointDir, command;
  std::vector<std::string> commands;
  std::vector<NamedValue> commonHyperParameters;
  std::string createWay, dataSetName, datasetVersionId, describe, devices;
  std::vector<NamedValue> fineTuneHyperParameters;
  std::string fineTuneStrategy, hyperparameter, image, inputDir, inputType;
  std::int64_t isPretrain = 0;
  std::string isUrgentTask, jobName, llmTrainFramework, modelId, modelVersion, modelVersionId, mpiCommand,
      name;
  std::vector<std::string> nodeName;
  std::string originModelDir, outputDir;
  std::int64_t podDelete = 0;
  std::string priority, profilePath;
  bool rdma = false;
  std::vector<NodeResource> resource;
  std::string resourceGroupKey, resourceName, resourceType, storageMedium, type, userId, userName;
  std::vector<Json> variable;
  std::string workingDir, zoneId, zoneName;
  std::int64_t timeLimit = 0;  ///< seconds; 0: none. This project's addition
};
void fields(Fields& f, CreateTask& task);

/// The table nests the fields in `createTaskBO`, the example has them at the top: both are read.
struct CreateTaskRequest {
  CreateTask flat;
  std::optional<CreateTask> createTaskBO;
  /// The task that was meant. Hyper-parameters stand beside createTaskBO in the table: they are taken over.
  CreateTask task() &&;
};
void fields(Fields& f, CreateTaskRequest& request);

// ---- 7.1 -------------------------------------------------------------------------------------------------

struct EvaluationResource {
  std::int64_t cpuNumber = 0;
  std::int64_t memory = 0;
  std::optional<GpuResource> gpuResource;
};
void fields(Fields& f, EvaluationResource& resource);

struct CreateEvaluation {
  std::string userId, name, resourceGroupId, resourceGroupName, resourceGroupKey, image, command, inputType,
      inputDir, storageMedium, datasetId, datasetName, modelType, modelDir, aiAppVersionId, aiAppVersionName,
      outputDir, workDir;
  std::optional<EvaluationResource> resource;
  std::vector<Json> env;  ///< travels as a list or as a string that holds one; given back as a string
  std::string description;
  std::int64_t timeLimit = 0;  ///< seconds; 0: none. This project's addition
};
void fields(Fields& f, CreateEvaluation& evaluation);

// ---- answers ---------------------------------------------------------------------------------------------

struct CreatedTask {
  std::string id, taskId;
};
void fields(Fields& f, CreatedTask& created);

/// What every answer about a task says of its state.
struct TaskStatus {
  std::string status;         ///< Pending, Running, Succeeded, Failed, Stopped
  std::string statusReason;   ///< "WaitingForQuota", "ExitCode 7"; "" while there is nothing to explain
  std::string statusMessage;  ///< the reason in words
  double progress = 0;        ///< 0 to 1
  std::optional<Time> createTime, startTime, endTime;
  std::string runTime;  ///< `54分41秒`; "" before it has started
};
void fields(Fields& f, TaskStatus& status);

/// A row of 4.2, 5.2 and 6.2.
struct TaskRow {
  std::string id, taskId, name, jobName, describe, userId, userName;
  std::int64_t isPretrain = 0;
  TaskStatus status;
};
void fields(Fields& f, TaskRow& row);

/// 4.3, 5.3, 6.3: every field of the creation, and how it stands.
struct TaskDetail {
  std::string id, taskId;
  CreateTask request;
  TaskStatus status;
};
void fields(Fields& f, TaskDetail& detail);

struct CheckpointRow {
  std::string id, name, path;
  std::int64_t step = 0;
  double size = 0;  ///< KB
  Time createTime{};
};
void fields(Fields& f, CheckpointRow& row);

struct RegisteredModel {
  std::string modelId, modelName, modelVersion, modelVersionId;
};
void fields(Fields& f, RegisteredModel& model);

/// A row of 4.4 and 5.4: the task and what came of it.
struct ManagedTaskRow {
  TaskRow task;
  std::string fineTuneStrategy, outputDir, checkPointDir;
  std::vector<CheckpointRow> checkpoints;
  std::optional<CheckpointRow> model;  ///< the finished model, where there is one
  bool registered = false;
  std::vector<RegisteredModel> models;
};
void fields(Fields& f, ManagedTaskRow& row);

/// A row of 7.2, exactly as documented.
struct EvaluationRow {
  std::string id, name, status, runTime, description, creatorId;
  Time createTime{};
};
void fields(Fields& f, EvaluationRow& row);

/// 7.3.
struct EvaluationDetail {
  std::string id;
  CreateEvaluation request;
  TaskStatus status;
};
void fields(Fields& f, EvaluationDetail& detail);

// ---- list requests ---------------------------------------------------------------------------------------

/// 4.2, 4.4, 5.2, 5.4, 6.2, 7.2.
struct TaskListRequest {
  std::optional<std::int64_t> isPretrain;
  http::PageQuery page;
  std::string status, taskName, userId, userName;
};
void fields(Fields& f, TaskListRequest& request);

struct TaskIdRequest {
  std::string taskId;
};
void fields(Fields& f, TaskIdRequest& request);

}  // namespace lathe::jobs
