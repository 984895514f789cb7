#include "jobs/draft.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>

#include "base/json.h"

namespace lathe::jobs {
namespace {

constexpr const char* kDocumentedExample = R"({
  "algorithmId": "", "checkPointDir": "", "command": "", "commands": [],
  "commonHyperParameters": [{"description": "", "name": "", "value": ""}],
  "createWay": "", "dataSetName": "", "datasetVersionId": "", "describe": "", "devices": "",
  "fineTuneHyperParameters": [{"description": "", "name": "", "value": ""}],
  "fineTuneStrategy": "", "hyperparameter": "", "image": "", "inputDir": "", "inputType": "", "isPretrain": 0,
  "isUrgentTask": "", "jobName": "", "llmTrainFramework": "", "modelId": "", "modelVersion": "",
  "modelVersionId": "", "mpiCommand": "", "name": "", "nodeName": [], "originModelDir": "", "outputDir": "",
  "podDelete": 0, "priority": "", "profilePath": "", "rdma": true,
  "resource": [{"cpuNumber": 0, "gpuResource": {"gpuCores": 0, "gpuMem": 0, "gpuNum": 0, "gpuShare": "",
    "migRes": ""}, "memory": 0, "nodeType": "", "numbers": 0}],
  "resourceGroupKey": "", "resourceName": "", "resourceType": "", "storageMedium": "", "type": "", "userId": "",
  "userName": "", "variable": [{}], "workingDir": "", "zoneId": "", "zoneName": ""})";

struct Read {
  Draft draft;
  std::vector<std::string> wrong;
  CreateTask task;
};

Read read(const std::string& text, JobKind kind = JobKind::fine_tune) {
  auto request = json::parse_as<CreateTaskRequest>(text);
  if (!request.ok()) {
    Read out;
    for (const auto& each : request.error().violations) out.wrong.push_back(each.field);
    return out;
  }
  Problems problems;
  Read out;
  out.task = std::move(*request).task();
  out.draft = draft_of(out.task, kind, problems);
  const auto result = std::move(problems).result();
  if (!result.ok())
    for (const auto& each : result.error().violations) out.wrong.push_back(each.field);
  return out;
}

TEST(Draft, TheDocumentedExampleLacksOnlyACommand) {
  const Read got = read(kDocumentedExample);
  EXPECT_EQ(got.wrong, std::vector<std::string>{"command"});
  ASSERT_EQ(got.draft.groups.size(), 1u);
  EXPECT_EQ(got.draft.groups[0], (RankGroup{NodeRole::master, 1, {.cpu = 1, .memory_gb = 1}}));
  EXPECT_TRUE(got.draft.common_parameters.empty());
  EXPECT_TRUE(got.draft.environment.empty());
  EXPECT_TRUE(got.draft.rdma);
}

TEST(Draft, EveryFieldIsGivenBack) {
  auto given = json::parse(kDocumentedExample).value().as_object();
  given["command"] = "python3 a.py";
  given["variable"] = json::parse(R"([{"name": "A", "value": "1"}])").value();
  const auto request = json::read<CreateTaskRequest>(Json(given));
  ASSERT_TRUE(request.ok());
  const Json back = json::parse(json::write(CreateTaskRequest(*request).task())).value();
  for (const auto& [name, value] : given) {
    ASSERT_TRUE(back.as_object().contains(name)) << std::string_view(name);
    EXPECT_EQ(back.at(name), value) << std::string_view(name);
  }
}

TEST(Draft, ReadsTheFieldsWhereverTheyStand) {
  EXPECT_EQ(read(R"({"command": "run"})").draft.command, "run");
  const Read nested = read(R"({"createTaskBO": {"command": "run", "name": "n"},
                              "commonHyperParameters": [{"name": "lr", "value": 0.1}]})");
  EXPECT_EQ(nested.draft.command, "run");
  EXPECT_EQ(nested.draft.name, "n");
  ASSERT_EQ(nested.draft.common_parameters.size(), 1u);
  EXPECT_EQ(nested.draft.common_parameters[0].value, "1E-1");
}

TEST(Draft, EveryWrongFieldIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"command": "x", "resource": [{"cpuNumber": -1}]})", "resource[0].cpuNumber"},
      {R"({"command": "x", "resource": [{"numbers": 300}]})", "resource[0].numbers"},
      {R"({"command": "x", "resource": [{"numbers": 200}, {"numbers": 200}]})", "resource"},
      {R"({"command": "x", "resource": [{"gpuResource": {"gpuShare": "half"}}]})",
       "resource[0].gpuResource.gpuShare"},
      {R"({"command": "x", "resource": [{}, {"gpuResource": {"gpuShare": "vgpu", "gpuNum": 1}}]})",
       "resource[1].gpuResource.gpuMem"},
      {R"({"command": "x", "resource": [{"nodeType": "chief"}]})", "resource[0].nodeType"},
      {R"({"command": "x", "resource": {}})", "resource"},
      {R"({"command": "x", "workingDir": "../up"})", "workingDir"},
      {R"({"command": "x", "outputDir": "a/../../b"})", "outputDir"},
      {R"({"command": "x", "name": "a;b"})", "name"},
      {R"j({"command": "x", "name": "$(id)"})j", "name"},
      {R"({"command": "x", "type": "Caffe"})", "type"},
      {R"({"command": "x", "llmTrainFramework": "Caffe"})", "llmTrainFramework"},
      {R"({"command": "x", "priority": "urgent!"})", "priority"},
      {R"({"command": "x", "priority": "101"})", "priority"},
      {R"({"command": "x", "isUrgentTask": "maybe"})", "isUrgentTask"},
      {R"({"command": "x", "isPretrain": 2})", "isPretrain"},
      {R"({"command": "x", "createWay": "magic"})", "createWay"},
      {R"({"command": "x", "storageMedium": "1203"})", "storageMedium"},
      {R"({"command": "x", "inputType": "dataset"})", "datasetVersionId"},
      {R"({"command": "x", "modelId": "m"})", "modelVersionId"},
      {R"({"createWay": "system"})", "algorithmId"},
      {R"({"command": "  \n"})", "command"},
      {R"({"command": {}})", "command"},
      {R"({"command": "x", "commonHyperParameters": [{"name": "", "value": "1"}]})",
       "commonHyperParameters[0].name"},
      {R"({"command": "x", "commonHyperParameters": [{"name": "a b", "value": "1"}]})",
       "commonHyperParameters[0].name"},
      {R"({"command": "x", "hyperparameter": "loose words"})", "hyperparameter"},
      {R"({"command": "x", "hyperparameter": "{broken"})", "hyperparameter"},
      {R"({"command": "x", "variable": [{"name": "A B", "value": "1"}]})", "variable[0].name"},
      {R"({"command": "x", "variable": [{"LD_PRELOAD": "/x.so"}]})", "variable[0].LD_PRELOAD"},
      {R"({"command": "x", "variable": [{"LATHE_JOB_ID": "1"}]})", "variable[0].LATHE_JOB_ID"},
      {R"({"command": "x", "variable": [{"RANK": "1"}]})", "variable[0].RANK"},
      {R"({"command": "x", "variable": ["A=1"]})", "variable[0]"},
      {R"({"command": "x", "timeLimit": -5})", "timeLimit"},
      {R"({"createTaskBO": {"command": "x", "podDelete": 7}})", "createTaskBO.podDelete"},
  };
  for (const auto& [text, field] : cases)
    EXPECT_EQ(read(text).wrong, std::vector<std::string>{field}) << text;
  EXPECT_EQ(read(R"({"priority": "x", "workingDir": "/a", "storageMedium": "1203"})").wrong,
            (std::vector<std::string>{"command", "storageMedium", "priority"}))
      << "all at once";
}

TEST(Draft, VariablesInEveryForm) {
  const Read got =
      read(R"({"command": "x", "variable": [{}, {"name": "A", "value": "1"}, {"key": "B", "value": 2},
      {"C": "3", "D": true}, {"additionalProperty1": {"E": "5"}}, {"A": "again"}, null]})");
  EXPECT_TRUE(got.wrong.empty());
  std::string all;
  for (const auto& each : got.draft.environment) all += each.name + "=" + each.value + ";";
  EXPECT_EQ(all, "B=2;C=3;D=true;E=5;A=again;");
}

TEST(Draft, ResourcesInEveryForm) {
  const Read got = read(R"({"command": "x", "resource": [
      {"cpuNumber": "4", "memory": 8, "nodeType": "master", "numbers": 1,
       "gpuResource": {"gpuNum": 2, "gpuShare": "none", "gpuMem": 10}},
      {"cpuNumber": 2, "memory": 4, "nodeType": "worker", "numbers": 3, "gpuResource": {"gpuNum": 1, "gpuMem": 8,
       "gpuCores": 50}},
      {"gpuResource": {"gpuNum": 1, "migRes": "1g.10gb"}}, {"gpuResource": {"gpuNum": 0, "gpuShare": "mig"}}]})");
  ASSERT_TRUE(got.wrong.empty());
  const auto& groups = got.draft.groups;
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[0], (RankGroup{NodeRole::master, 1, {4, 8, {2, GpuShare::none, 0, 0, ""}}}));
  EXPECT_EQ(groups[1], (RankGroup{NodeRole::worker, 3, {2, 4, {1, GpuShare::vgpu, 8, 50, ""}}}));
  EXPECT_EQ(groups[2].each.gpu, (GpuRequest{1, GpuShare::mig, 0, 0, "1g.10gb"}));
  EXPECT_EQ(groups[3].each.gpu, GpuRequest{});
}

TEST(Draft, HyperParametersInEveryForm) {
  Problems problems;
  const auto text = [&](const char* given) {
    std::string out;
    for (const auto& each : parse_hyperparameter(given, "h", problems))
      out += each.name + "=" + each.value + ";";
    return out;
  };
  EXPECT_EQ(text(""), "");
  EXPECT_EQ(text("null"), "");
  EXPECT_EQ(text(R"({"lr": 1, "s": "a b"})"), "lr=1;s=a b;");
  EXPECT_EQ(text(R"([{"name": "lr", "value": "2"}])"), "lr=2;");
  EXPECT_EQ(text("--lr 1e-4  --fp16 --seed=3 x=y"), "lr=1e-4;fp16=true;seed=3;x=y;");
  EXPECT_TRUE(problems.empty());
}

TEST(Draft, TheRequestOverridesItsProfile) {
  Draft draft;
  draft.common_parameters = {{"learning_rate", "9", ""}, {"new", "1", ""}};
  draft.tuning_parameters = {{"lora_r", "4", ""}};
  Problems problems;
  add_profile(draft,
              {.commonHyperParameters = {{"", "learning_rate", "1e-4"}, {"", "epochs", "3"}},
               .fineTuneHyperParameters = {{"", "lora_alpha", "16"}, {"", "lora_r", "8"}},
               .fineTuneStrategy = "LoRA"},
              problems);
  std::string all;
  for (const auto* list : {&draft.common_parameters, &draft.tuning_parameters})
    for (const auto& each : *list) all += each.name + "=" + each.value + ";";
  EXPECT_EQ(all, "learning_rate=9;epochs=3;new=1;lora_alpha=16;lora_r=4;");
  EXPECT_EQ(draft.strategy, "LoRA");
}

TEST(Draft, WordsOfTheirOwnMakeACommand) {
  EXPECT_EQ(read(R"({"commands": ["python3", "a b.py"]})").draft.command, "\"python3\" \"a b.py\"");
  EXPECT_EQ(read(R"({"mpiCommand": "mpirun x"})").draft.command, "mpirun x");
  const Read preset = read(R"({"algorithmId": "hf-lora"})");
  EXPECT_TRUE(preset.wrong.empty());
  EXPECT_EQ(preset.draft.algorithm_id, "hf-lora");
}

TEST(Draft, EvaluationReadsItsOwnNames) {
  const auto parse = [](const char* text) {
    Problems problems;
    const auto in = json::parse_as<CreateEvaluation>(text);
    EXPECT_TRUE(in.ok());
    Draft draft = draft_of(*in, problems);
    EXPECT_TRUE(problems.empty());
    return draft;
  };
  const Draft draft =
      parse(R"({"name": "e", "image": "host", "command": "run ${model_dir}", "outputDir": "/o",
      "modelType": "local", "modelDir": "/m", "resource": {"cpuNumber": 2, "memory": 3, "gpuResource": null},
      "env": "[{\"name\": \"A\", \"value\": \"1\"}]"})");
  EXPECT_EQ(draft.model_dir, "/m");
  EXPECT_EQ(draft.environment.at(0).value, "1");
  EXPECT_EQ(draft.groups.at(0).each.memory_gb, 3);
  EXPECT_EQ(parse(R"({"name": "e", "image": "host", "command": "x", "outputDir": "/o", "modelType": "aiApp",
      "aiAppVersionId": "v", "resource": {}, "env": [{"A": "1"}]})")
                .model_version_id,
            "v");
  // The documented example has null everywhere.
  const auto empty = json::parse_as<CreateEvaluation>(R"({"name": null, "image": null, "command": null,
      "resource": null, "env": null, "outputDir": null, "description": null})");
  ASSERT_FALSE(empty.ok());
  std::set<std::string> fields;
  for (const auto& each : empty.error().violations) fields.insert(each.field);
  EXPECT_EQ(fields, (std::set<std::string>{"name", "image", "command", "outputDir", "resource"}));
}

}  // namespace
}  // namespace lathe::jobs
