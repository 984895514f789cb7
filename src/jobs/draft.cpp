#include "jobs/draft.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "base/text_form.h"
#include "jobs/plan/command.h"
#include "jobs/plan/environment.h"

namespace lathe::jobs {

namespace bj = boost::json;

const FieldNames kTaskFields{
    .work = "workingDir",
    .model_dir = "originModelDir",
    .model_version = "modelVersionId",
    .input_dir = "inputDir",
    .output = "outputDir",
    .checkpoint = "checkPointDir",
    .dataset_id = "datasetId",
    .dataset_name = "dataSetName",
    .dataset_version = "datasetVersionId",
    .group_id = "zoneId",
    .group_key = "resourceGroupKey",
    .group_name = "zoneName",
    .environment = "variable",
    .resource = "resource",
    .image = "image",
    .command = "command",
};

const FieldNames kEvaluationFields{
    .work = "workDir",
    .model_dir = "modelDir",
    .model_version = "aiAppVersionId",
    .input_dir = "inputDir",
    .output = "outputDir",
    .checkpoint = "outputDir",
    .dataset_id = "datasetId",
    .dataset_name = "datasetName",
    .dataset_version = "datasetId",
    .group_id = "resourceGroupId",
    .group_key = "resourceGroupKey",
    .group_name = "resourceGroupName",
    .environment = "env",
    .resource = "resource",
    .image = "image",
    .command = "command",
};

namespace {

constexpr int kMaxRanks = 256;
constexpr std::string_view kObjectStorage = "1203";

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

int positive(std::int64_t value) {
  return value <= 0 ? 1 : static_cast<int>(value);
}

GpuRequest gpu_request(const std::optional<GpuResource>& wire, const std::string& field, Problems& problems) {
  GpuRequest out;
  if (!wire || wire->gpuNum.value_or(0) <= 0) return out;
  out.count = static_cast<int>(*wire->gpuNum);
  const auto memory = wire->gpuMem.value_or(0), cores = wire->gpuCores.value_or(0);
  if (!wire->gpuShare.empty()) {
    out.share = gpu_share(wire->gpuShare).value_or(GpuShare::none);
  } else if (!wire->migRes.empty()) {
    out.share = GpuShare::mig;
  } else if (memory > 0 || cores > 0) {
    out.share = GpuShare::vgpu;
  }
  if (out.share == GpuShare::vgpu) {
    out.memory_gb = static_cast<int>(memory);
    out.cores = static_cast<int>(cores);
    if (memory == 0 && cores == 0)
      problems.add(field + ".gpuMem", {"gpuShare 为 vgpu 时，gpuMem 与 gpuCores 不能都为空：份额须有大小",
                                       "or gpuCores is required where gpuShare is vgpu: a share has a size"});
  }
  if (out.share == GpuShare::mig) out.mig = wire->migRes;
  return out;
}

/// `list`: the request writes several, and so errors name the number.
std::vector<RankGroup> rank_groups(const std::vector<NodeResource>& wire, bool list, Problems& problems) {
  std::vector<RankGroup> out;
  std::int64_t ranks = 0;
  for (const auto& each : wire) {
    const std::string field = list ? fmt::format("resource[{}]", out.size()) : "resource";
    RankGroup group;
    const bool master = each.nodeType == "master" || (each.nodeType.empty() && out.empty());
    group.role = master ? NodeRole::master : NodeRole::worker;
    group.count = positive(each.numbers);
    group.each.cpu = positive(each.cpuNumber);
    group.each.memory_gb = positive(each.memory);
    group.each.gpu = gpu_request(each.gpuResource, field + ".gpuResource", problems);
    ranks += group.count;
    out.push_back(std::move(group));
  }
  if (out.empty()) out.push_back({.role = NodeRole::master});
  if (ranks > kMaxRanks)
    problems.add("resource", {fmt::format("节点总数不能超过 {}", kMaxRanks),
                              fmt::format("asks for more than {} nodes in all", kMaxRanks)});
  return out;
}

std::vector<HyperParameter> parameters(const std::vector<NamedValue>& wire, std::string_view field,
                                       Problems& problems) {
  std::vector<HyperParameter> out;
  for (std::size_t i = 0; i < wire.size(); ++i) {
    const auto& [description, name, value] = wire[i];
    if (name.empty() && value.empty()) continue;  // the documented example's empty row
    if (name.empty()) problems.add(fmt::format("{}[{}].name", field, i), {"不能为空", "is required"});
    out.push_back({name, value, description});
  }
  return out;
}

int read_priority(const std::string& text, Problems& problems) {
  const std::string word = lower(text);
  if (word.empty() || word == "normal" || word == "medium" || word == "中") return 0;
  if (word == "low" || word == "低") return -10;
  if (word == "high" || word == "高") return 10;
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < -100 || value > 100) {
    problems.add("priority", {"应为 -100 到 100 的整数，或 low、normal、high",
                              "must be a whole number from -100 to 100, or low, normal or high"});
    return 0;
  }
  return value;
}

bool read_yes(const std::string& text) {
  return text == "true" || text == "1" || text == "yes" || text == "是";
}

std::string read_framework(const CreateTask& task, Problems& problems) {
  if (!task.type.empty()) return task.type;
  if (task.llmTrainFramework.empty()) return {};
  for (std::string_view known : {"PyTorch", "TensorFlow", "scikit-learn", "MPI"})
    if (lower(known) == lower(task.llmTrainFramework)) return std::string(known);
  problems.add("llmTrainFramework", {"只能是：PyTorch, TensorFlow, scikit-learn, MPI",
                                     "must be one of: PyTorch, TensorFlow, scikit-learn, MPI"});
  return {};
}

void check_storage(const std::string& medium, Problems& problems) {
  if (medium == kObjectStorage)
    problems.add("storageMedium",
                 {"未配置对象存储，只能是 1201（本地）", "no object store is configured: must be 1201"});
}

/// A dataset is meant where the request says so, or names one without naming a folder.
bool means_dataset(const std::string& input_type, const std::string& input_dir, bool names_dataset) {
  return input_type == "dataset" || (input_type.empty() && input_dir.empty() && names_dataset);
}

std::string scalar_text(const Json& value) {
  if (value.is_string()) return std::string(value.get_string());
  if (value.is_null()) return {};
  return bj::serialize(value);
}

class VariableReader {
 public:
  VariableReader(std::string_view field, Problems& problems) : field_(field), problems_(problems) {}
  std::vector<EnvironmentVariable> out;

  void item(const Json& json, const std::string& at) {
    const auto* object = json.if_object();
    if (!object) {
      if (!json.is_null()) problems_.add(at, {"应为对象", "must be an object"});
      return;
    }
    for (const char* key : {"name", "key"}) {
      const auto* name = object->if_contains(key);
      const auto* value = object->if_contains("value");
      if (!name || (!value && object->size() > 1)) continue;
      if (scalar_text(*name).empty() && (!value || scalar_text(*value).empty())) return;
      return add(scalar_text(*name), value ? *value : Json(), fmt::format("{}.{}", at, key));
    }
    for (const auto& [name, value] : *object) {
      const std::string inner = fmt::format("{}.{}", at, std::string_view(name));
      value.is_object() ? item(value, inner) : add(std::string(name), value, inner);
    }
  }

 private:
  void add(std::string name, const Json& value, const std::string& at) {
    if (auto why = violates(Form::variable, name)) return problems_.add(at, std::move(*why));
    if (is_forbidden_variable(name))
      return problems_.add(at, {fmt::format("{} 由平台设置，不能更改", name),
                                fmt::format("{} is set by the platform and cannot be changed", name)});
    if (value.is_array())
      return problems_.add(at, {"应为文字、数字或布尔值", "must be a text, a number or true or false"});
    std::string text = scalar_text(value);
    if (auto why = violates(Form::any, text)) return problems_.add(at, std::move(*why));
    constexpr std::size_t kLongest = 65536;
    if (text.size() > kLongest) return problems_.add(at, {"过长", "is too long"});
    std::erase_if(out, [&](const auto& each) { return each.name == name; });
    out.push_back({std::move(name), std::move(text)});
  }

  std::string_view field_;
  Problems& problems_;
};

}  // namespace

std::vector<EnvironmentVariable> read_variables(const std::vector<Json>& items, std::string_view field,
                                                Problems& problems) {
  VariableReader reader(field, problems);
  for (std::size_t i = 0; i < items.size(); ++i) reader.item(items[i], fmt::format("{}[{}]", field, i));
  return std::move(reader.out);
}

std::vector<HyperParameter> parse_hyperparameter(std::string_view text, std::string_view field,
                                                 Problems& problems) {
  std::vector<HyperParameter> out;
  const auto add = [&](std::string name, std::string value) {
    if (auto why = violates(Form::option, name))
      problems.add(std::string(field), {name + " " + why->zh, name + " " + why->en});
    out.push_back({std::move(name), std::move(value), {}});
  };
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text == "null") return out;
  if (text[first] == '{' || text[first] == '[') {
    auto json = json::parse(text);
    if (!json.ok()) {
      problems.add(std::string(field), {"不是合法的 JSON", "is not valid JSON"});
      return out;
    }
    if (const auto* object = json->if_object())
      for (const auto& [name, value] : *object) add(std::string(name), scalar_text(value));
    if (const auto* list = json->if_array()) {
      for (const auto& item : *list) {
        auto row = json::read<NamedValue>(item);
        if (!row.ok())
          problems.add(std::string(field), {"应为 {name, value} 的列表", "must be a list of {name, value}"});
        else if (!row->name.empty())
          add(row->name, row->value);
      }
    }
    return out;
  }
  std::vector<std::string> words;
  for (std::size_t i = first; i < text.size();) {
    const auto end = std::min(text.find_first_of(" \t\r\n", i), text.size());
    if (end > i) words.emplace_back(text.substr(i, end - i));
    i = end + 1;
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    const bool dashed = word.starts_with("--");
    if (dashed) word.erase(0, 2);
    if (const auto equals = word.find('='); equals != std::string::npos) {
      add(word.substr(0, equals), word.substr(equals + 1));
    } else if (dashed && i + 1 < words.size() && !words[i + 1].starts_with("--")) {
      add(word, words[++i]);
    } else if (dashed) {
      add(word, "true");
    } else {
      problems.add(std::string(field),
                   {"应为 JSON，或 --name value 形式", "must be JSON, or words like --name value"});
      return out;
    }
  }
  return out;
}

Draft draft_of(const CreateTask& t, JobKind kind, Problems& problems) {
  Draft d;
  d.kind = kind;
  d.name = !t.name.empty() ? t.name : t.jobName;
  d.description = t.describe;
  d.user_id = t.userId;
  d.user_name = t.userName;
  d.group_id = t.zoneId;
  d.group_key = t.resourceGroupKey;
  d.group_name = t.zoneName;
  d.image = t.image;
  d.framework = read_framework(t, problems);
  d.strategy = t.fineTuneStrategy;
  d.profile_path = t.profilePath;
  const bool preset =
      t.createWay == "system" || (t.createWay.empty() && t.command.empty() && t.commands.empty() &&
                                  t.mpiCommand.empty() && !t.algorithmId.empty());
  if (preset) {
    d.algorithm_id = t.algorithmId;
    if (d.algorithm_id.empty())
      problems.add("algorithmId",
                   {"createWay 为 system 时不能为空", "is required where createWay is system"});
  } else {
    d.command = t.command;
    if (d.command.empty()) d.command = line_of(t.commands);
    if (d.command.empty()) d.command = t.mpiCommand;
    if (d.command.find_first_not_of(" \t\r\n") == std::string::npos)
      problems.add("command", {"不能为空（或指定预置算法 algorithmId）",
                               "is required (or else a preset algorithm, algorithmId)"});
  }
  d.common_parameters = parameters(t.commonHyperParameters, "commonHyperParameters", problems);
  for (auto& each : parse_hyperparameter(t.hyperparameter, "hyperparameter", problems))
    d.common_parameters.push_back(std::move(each));
  d.tuning_parameters = parameters(t.fineTuneHyperParameters, "fineTuneHyperParameters", problems);
  d.environment = read_variables(t.variable, "variable", problems);
  d.work_dir = t.workingDir;
  d.model_dir = t.originModelDir;
  d.model_version_id = t.modelVersionId;
  if (d.model_version_id.empty() && d.model_dir.empty() && !t.modelId.empty())
    problems.add("modelVersionId", {"指定 modelId 时不能为空", "is required where modelId is given"});
  d.input_dir = t.inputDir;
  d.output_dir = t.outputDir;
  d.checkpoint_dir = t.checkPointDir;
  d.input_is_dataset =
      means_dataset(t.inputType, t.inputDir, !t.datasetVersionId.empty() || !t.dataSetName.empty());
  d.dataset_name = t.dataSetName;
  d.dataset_version_id = t.datasetVersionId;
  if (d.input_is_dataset && d.dataset_name.empty() && d.dataset_version_id.empty())
    problems.add("datasetVersionId",
                 {"inputType 为 dataset 时不能为空", "is required where inputType is dataset"});
  check_storage(t.storageMedium, problems);
  d.groups = rank_groups(t.resource, true, problems);
  d.nodes = t.nodeName;
  std::erase(d.nodes, "");
  d.priority = read_priority(t.priority, problems);
  d.urgent = read_yes(t.isUrgentTask);
  d.rdma = t.rdma;
  d.rdma_resource = t.resourceName;
  d.time_limit_s = t.timeLimit;
  return d;
}

Draft draft_of(const CreateEvaluation& e, Problems& problems) {
  Draft d;
  d.kind = JobKind::evaluation;
  d.names = &kEvaluationFields;
  d.name = e.name;
  d.description = e.description;
  d.user_id = e.userId;
  d.group_id = e.resourceGroupId;
  d.group_key = e.resourceGroupKey;
  d.group_name = e.resourceGroupName;
  d.image = e.image;
  d.command = e.command;
  d.environment = read_variables(e.env, "env", problems);
  d.work_dir = e.workDir;
  if (e.modelType == "aiApp" || (e.modelType.empty() && e.modelDir.empty())) {
    d.model_version_id = e.aiAppVersionId;
    if (e.modelType == "aiApp" && e.aiAppVersionId.empty())
      problems.add("aiAppVersionId",
                   {"modelType 为 aiApp 时不能为空", "is required where modelType is aiApp"});
  } else {
    d.model_dir = e.modelDir;
    if (e.modelDir.empty())
      problems.add("modelDir", {"modelType 为 local 时不能为空", "is required where modelType is local"});
  }
  d.input_dir = e.inputDir;
  d.input_is_dataset = means_dataset(e.inputType, e.inputDir, !e.datasetId.empty() || !e.datasetName.empty());
  d.dataset_id = e.datasetId;
  d.dataset_name = e.datasetName;
  if (d.input_is_dataset && d.dataset_id.empty() && d.dataset_name.empty())
    problems.add("datasetId", {"inputType 为 dataset 时不能为空", "is required where inputType is dataset"});
  check_storage(e.storageMedium, problems);
  d.output_dir = e.outputDir;
  NodeResource node;
  if (e.resource) {
    node.cpuNumber = e.resource->cpuNumber;
    node.memory = e.resource->memory;
    node.gpuResource = e.resource->gpuResource;
  }
  d.groups = rank_groups({node}, false, problems);
  d.time_limit_s = e.timeLimit;
  return d;
}

void fields(Fields& f, Profile& profile) {
  f.field("commonHyperParameters", profile.commonHyperParameters);
  f.field("fineTuneHyperParameters", profile.fineTuneHyperParameters);
  f.field("fineTuneStrategy", profile.fineTuneStrategy, {.max_length = 128, .form = Form::name});
}

void add_profile(Draft& draft, const Profile& profile, Problems& problems) {
  auto common = parameters(profile.commonHyperParameters, "profilePath.commonHyperParameters", problems);
  auto tuning = parameters(profile.fineTuneHyperParameters, "profilePath.fineTuneHyperParameters", problems);
  const auto override_or_append = [&](std::vector<HyperParameter>& own, std::vector<HyperParameter>& list) {
    for (auto& mine : own) {
      bool found = false;
      for (auto* each : {&common, &tuning})
        for (auto& theirs : *each)
          if (theirs.name == mine.name) theirs.value = mine.value, found = true;
      if (!found) list.push_back(std::move(mine));
    }
  };
  override_or_append(draft.common_parameters, common);
  override_or_append(draft.tuning_parameters, tuning);
  draft.common_parameters = std::move(common);
  draft.tuning_parameters = std::move(tuning);
  if (draft.strategy.empty()) draft.strategy = profile.fineTuneStrategy;
}

}  // namespace lathe::jobs
