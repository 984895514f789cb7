#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/directory.h"
#include "base/fields.h"
#include "base/result.h"
#include "models/models.h"

/// What the files of a model say about it. Nothing is run, and no pickle is ever opened: only JSON and the
/// headers of weight files are read, within limits.
namespace lathe::models {

/// From adapter_config.json.
struct AdapterDetails {
  std::string type;  ///< "LORA"
  std::string baseModel;
  std::optional<std::int64_t> r;
  std::optional<double> alpha, dropout;
  std::vector<std::string> targetModules;
};

/// From generation_config.json: how the model wants to be sampled.
struct GenerationDetails {
  std::optional<double> temperature, topP;
  std::optional<std::int64_t> topK, maxNewTokens;
};

struct TypeShare {
  std::string dtype;
  std::int64_t numbers = 0;
};

/// All that was found, as it is written into the documented `parameters`. Absent where the files do not say.
struct ModelDetails {
  std::string format, architecture, modelType, dtype;
  std::optional<std::int64_t> parameterCount;
  bool estimated = false;  ///< the count follows from the configuration; there are no weights to count
  std::optional<std::int64_t> tensorCount, weightFiles, weightBytes;
  std::vector<TypeShare> dtypes;
  std::optional<std::int64_t> hiddenSize, intermediateSize, layers, attentionHeads, keyValueHeads, vocabSize,
      contextLength, experts;
  std::optional<bool> tieWordEmbeddings;
  bool tokenizer = false;  ///< its files are there
  std::optional<std::string> quantization;
  std::optional<std::int64_t> quantizationBits;
  std::optional<AdapterDetails> adapter;
  std::optional<GenerationDetails> generation;
  std::optional<std::string> transformersVersion;
};
void fields(Fields& f, AdapterDetails& a);
void fields(Fields& f, GenerationDetails& g);
void fields(Fields& f, TypeShare& t);
void fields(Fields& f, ModelDetails& d);

struct FolderReport {
  ModelDetails details;
  std::string config_text;  ///< config.json as it is; "" where there is none, or it is no JSON object
  std::string deploy_text;  ///< deploy.json as it is, if it is JSON
};

/// Looks at a model's folder. failed_precondition, naming the file, for what is certainly damaged: weights
/// that were cut off, shards that are missing, the pointer of a Git LFS file in place of the file.
Result<FolderReport> read_model_folder(const Directory& folder);

/// The part of it that others need.
ModelFacts facts_of(const ModelDetails& details);

/// 357000 → "357K", 6738415616 → "6.7B"; "" for 0.
std::string human_scale(std::int64_t parameters);

}  // namespace lathe::models
