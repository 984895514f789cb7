#include "models/model_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cmath>
#include <string_view>

#include "base/json.h"
#include "models/gguf.h"
#include "models/model_config.h"
#include "models/safetensors.h"

namespace lathe::models {

namespace {

namespace bj = boost::json;

constexpr std::size_t kMaxEntries = 20'000;  // of the folder itself; a model has a few hundred at most
constexpr std::size_t kMaxConfig = 1 << 20;

struct File {
  std::string name;
  std::uint64_t size = 0;
};

Error at_file(std::string_view name, const Error& error) {
  return Error{
      error.code,
      {fmt::format("{}：{}", name, error.message.zh), fmt::format("{}: {}", name, error.message.en)}};
}

Result<std::vector<File>> list_files(const Directory& folder) {
  std::vector<File> files;
  std::string after;
  for (std::size_t seen = 0; seen < kMaxEntries;) {
    auto page = TRY(folder.list(Path(), after, 1000));
    if (page.empty()) break;
    seen += page.size();
    after = page.back().name;
    for (auto& entry : page)
      if (entry.info.type == FileType::file) files.push_back({std::move(entry.name), entry.info.size});
  }
  return files;
}

/// In a list in the order of names.
const File* find(const std::vector<File>& files, std::string_view name) {
  const auto at =
      std::lower_bound(files.begin(), files.end(), name,
                       [](const File& file, std::string_view wanted) { return file.name < wanted; });
  return at != files.end() && at->name == name ? &*at : nullptr;
}

/// An open file as safetensors and GGUF readers want it.
struct OpenFile {
  Fd fd;
  std::uint64_t size = 0;
  ReadAt reader() const { return read_from(fd.get()); }
};

Result<OpenFile> open(const Directory& folder, std::string_view name) {
  const Path path = TRY(Path::parse(name, "savePath"));
  OpenFile file{TRY(folder.open_file(path)), TRY(folder.stat(path)).size};
  return file;
}

/// A large file kept beside a Git repository leaves a short text in its place until it is fetched.
Result<void> refuse_pointer(const OpenFile& file, std::string_view name) {
  constexpr std::string_view kPointer = "version https://git-lfs.github.com/spec/";
  if (file.size > 1024) return {};
  std::string start(kPointer.size(), '\0');
  const std::size_t got = TRY(file.reader()(0, start));
  if (got != kPointer.size() || start != kPointer) return {};
  return at_file(name, Error{Code::failed_precondition,
                             {"只是 Git LFS 的指针文件，文件内容未下载（先执行 git lfs pull）",
                              "is a Git LFS pointer; the file itself was not fetched (git lfs pull)"}});
}

Result<Tensors> read_weights(const Directory& folder, const std::string& name) {
  const OpenFile file = TRY(open(folder, name));
  TRY(refuse_pointer(file, name));
  auto tensors = read_safetensors(file.size, file.reader());
  if (!tensors) return at_file(name, tensors.error());
  return tensors;
}

std::optional<bj::object> read_object(const Directory& folder, const std::vector<File>& files,
                                      std::string_view name, std::string* text = nullptr) {
  if (!find(files, name)) return std::nullopt;
  auto path = Path::parse(name, "savePath");
  if (!path) return std::nullopt;
  auto body = folder.read_file(*path, kMaxConfig);
  if (!body) return std::nullopt;
  auto parsed = json::parse(*body);
  if (!parsed || !parsed->is_object()) return std::nullopt;
  if (text) *text = std::move(*body);
  return std::move(parsed->get_object());
}

/// How many weights there are, several of which a quantised model keeps in one number.
std::int64_t count_weights(const Tensors& tensors, const ModelDetails& details) {
  if (tensors.packed == 0 || !details.quantizationBits || *details.quantizationBits <= 0 ||
      *details.quantizationBits > 32)
    return tensors.numbers;
  return tensors.numbers - tensors.packed - tensors.beside_packed +
         tensors.packed * (32 / *details.quantizationBits);
}

void take_tensors(const Tensors& tensors, std::int64_t files, std::int64_t bytes, ModelDetails& out) {
  out.parameterCount = count_weights(tensors, out);
  out.tensorCount = tensors.count;
  out.weightFiles = files;
  out.weightBytes = bytes;
  for (const auto& [type, numbers] : tensors.by_type) out.dtypes.push_back({type, numbers});
  std::sort(out.dtypes.begin(), out.dtypes.end(),
            [](const TypeShare& a, const TypeShare& b) { return a.numbers > b.numbers; });
  if (!out.dtypes.empty()) out.dtype = out.dtypes[0].dtype;
}

/// Which files are the model, where there is no index: other precisions and copies in another layout may lie
/// beside it.
std::vector<std::string> choose_weights(const std::vector<File>& files) {
  if (find(files, "model.safetensors")) return {"model.safetensors"};
  std::vector<std::string> shards, others;
  for (const File& file : files) {
    if (!file.name.ends_with(".safetensors") || file.name == "adapter_model.safetensors") continue;
    const bool shard = file.name.starts_with("model-") && file.name.find("-of-") != std::string::npos;
    (shard ? shards : others).push_back(file.name);
  }
  return shards.empty() ? others : shards;
}

Result<std::vector<std::string>> weight_files(const Directory& folder, const std::vector<File>& files) {
  constexpr std::string_view kIndex = "model.safetensors.index.json";
  if (!find(files, kIndex)) return choose_weights(files);
  const OpenFile file = TRY(open(folder, kIndex));
  TRY(refuse_pointer(file, kIndex));
  auto index = read_shard_index(file.size, file.reader());
  if (!index) return at_file(kIndex, index.error());
  std::vector<std::string> names(index->files.begin(), index->files.end());
  for (const std::string& name : names)
    if (!find(files, name))
      return at_file(name.substr(0, 255),
                     Error{Code::failed_precondition,
                           {"缺少该分片（索引 model.safetensors.index.json 中有它）",
                            "this shard is missing (model.safetensors.index.json names it)"}});
  return names;
}

Result<void> take_safetensors(const Directory& folder, const std::vector<File>& files,
                              const std::vector<std::string>& names, ModelDetails& out) {
  Tensors all;
  std::int64_t bytes = 0;
  for (const std::string& name : names) {
    all += TRY(read_weights(folder, name));
    if (const File* file = find(files, name)) bytes += static_cast<std::int64_t>(file->size);
  }
  take_tensors(all, static_cast<std::int64_t>(names.size()), bytes, out);
  return {};
}

bool any_ends(const std::vector<File>& files, std::initializer_list<std::string_view> ends) {
  return std::any_of(files.begin(), files.end(), [&](const File& file) {
    return std::any_of(ends.begin(), ends.end(), [&](auto end) { return file.name.ends_with(end); });
  });
}

Result<void> take_gguf(const Directory& folder, const std::string& name, ModelDetails& out) {
  const OpenFile file = TRY(open(folder, name));
  TRY(refuse_pointer(file, name));
  auto header = read_gguf(file.size, file.reader());
  if (!header) return at_file(name, header.error());
  if (out.modelType.empty()) out.modelType = shorten(header->architecture);
  if (header->numbers > 0) out.parameterCount = header->numbers;
  out.tensorCount = header->tensors;
  out.weightFiles = 1;
  out.weightBytes = static_cast<std::int64_t>(file.size);
  if (!header->type.empty()) out.dtype = header->type;
  if (header->context_length > 0) out.contextLength = header->context_length;
  return {};
}

Result<void> take_weights(const Directory& folder, const std::vector<File>& files, bool has_config,
                          ModelDetails& out) {
  const auto names = TRY(weight_files(folder, files));
  if (!names.empty()) {
    out.format = "safetensors";
    return take_safetensors(folder, files, names, out);
  }
  if (const File* weights = find(files, "adapter_model.safetensors"); weights && out.adapter) {
    out.format = "adapter";
    return take_safetensors(folder, files, {weights->name}, out);
  }
  for (const File& file : files)
    if (file.name.ends_with(".gguf")) {
      out.format = "gguf";
      return take_gguf(folder, file.name, out);
    }
  if (out.adapter) {
    out.format = "adapter";
  } else if (find(files, "model_index.json")) {
    out.format = "diffusers";
  } else if (any_ends(files, {".onnx"})) {
    out.format = "onnx";
  } else if (find(files, "saved_model.pb")) {
    out.format = "tensorflow";
  } else if (any_ends(files, {".bin", ".pt", ".pth", ".ckpt"})) {
    out.format = "pytorch";
  } else if (any_ends(files, {".pkl", ".pickle", ".joblib"})) {
    out.format = "pickle";
  } else if (has_config) {
    out.format = "config";
    out.parameterCount = estimate_parameters(out);
    out.estimated = out.parameterCount.has_value();
  }
  return {};
}

}  // namespace

Result<FolderReport> read_model_folder(const Directory& folder) {
  FolderReport report;
  const auto files = TRY(list_files(folder));
  const auto config = read_object(folder, files, "config.json", &report.config_text);
  if (config) take_config(*config, report.details);
  if (const auto adapter = read_object(folder, files, "adapter_config.json"))
    report.details.adapter = take_adapter(*adapter);
  if (const auto generation = read_object(folder, files, "generation_config.json"))
    report.details.generation = take_generation(*generation);
  read_object(folder, files, "deploy.json", &report.deploy_text);
  for (const std::string_view name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                                      "vocab.json", "vocab.txt", "tekken.json", "spiece.model"})
    if (find(files, name)) report.details.tokenizer = true;
  TRY(take_weights(folder, files, config.has_value(), report.details));
  if (report.details.format == "diffusers")
    if (const auto index = read_object(folder, files, "model_index.json"))
      if (const bj::value* name = index->if_contains("_class_name"); name && name->is_string())
        report.details.architecture = shorten(name->get_string());
  return report;
}

ModelFacts facts_of(const ModelDetails& d) {
  return {d.format,
          d.architecture,
          d.modelType,
          d.dtype,
          d.parameterCount.value_or(0),
          d.adapter ? d.adapter->baseModel : std::string(),
          d.quantization.value_or(""),
          d.contextLength.value_or(0),
          d.tokenizer};
}

std::string human_scale(std::int64_t parameters) {
  if (parameters <= 0) return {};
  if (parameters < 1000) return std::to_string(parameters);
  static constexpr std::string_view kUnits[] = {"K", "M", "B", "T"};
  auto value = static_cast<double>(parameters) / 1000;
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  std::string digits = fmt::format("{:.{}f}", value, value < 99.95 ? 1 : 0);
  if (digits.ends_with(".0")) digits.resize(digits.size() - 2);
  return digits + std::string(kUnits[unit]);
}

}  // namespace lathe::models
