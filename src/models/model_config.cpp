#include "models/model_config.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/text_form.h"

namespace lathe::models {

namespace bj = boost::json;

namespace {

/// Multimodal models keep their language model's figures in an object of its own.
const bj::value* look(const bj::object& config, std::initializer_list<std::string_view> names) {
  for (const auto name : names)
    if (const bj::value* value = config.if_contains(name); value && !value->is_null()) return value;
  for (const std::string_view inner : {"text_config", "llm_config", "language_config"})
    if (const bj::value* nested = config.if_contains(inner); nested && nested->is_object())
      for (const auto name : names)
        if (const bj::value* value = nested->get_object().if_contains(name); value && !value->is_null())
          return value;
  return nullptr;
}

std::optional<std::int64_t> whole(const bj::object& config, std::initializer_list<std::string_view> names) {
  const bj::value* value = look(config, names);
  if (!value || !value->is_int64() || value->get_int64() < 0) return std::nullopt;
  return value->get_int64();
}

std::optional<double> number(const bj::object& config, std::initializer_list<std::string_view> names) {
  const bj::value* value = look(config, names);
  if (!value || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}

std::string text(const bj::object& config, std::initializer_list<std::string_view> names) {
  const bj::value* value = look(config, names);
  if (!value || !value->is_string()) return {};
  return shorten(value->get_string());
}

/// torch's names as safetensors spells them.
std::string short_type(std::string_view torch_type) {
  if (torch_type.starts_with("torch.")) torch_type.remove_prefix(6);
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"float32", "F32"},        {"float", "F32"},
      {"float16", "F16"},        {"half", "F16"},
      {"bfloat16", "BF16"},      {"float64", "F64"},
      {"double", "F64"},         {"int8", "I8"},
      {"uint8", "U8"},           {"float8_e4m3fn", "F8_E4M3"},
      {"float8_e5m2", "F8_E5M2"}};
  for (const auto& [torch, name] : kNames)
    if (torch == torch_type) return std::string(name);
  return std::string(torch_type);
}

}  // namespace

std::string shorten(std::string_view text, std::size_t limit) {
  while (!text.empty()) {
    if (text.size() <= limit && count_code_points(text)) return std::string(text);
    if (text.size() + 4 <= limit) return {};
    text = text.substr(0, std::min(text.size() - 1, limit));
  }
  return {};
}

void take_config(const bj::object& config, ModelDetails& out) {
  if (const bj::value* list = config.if_contains("architectures"); list && list->is_array()) {
    const auto& names = list->get_array();
    if (!names.empty() && names[0].is_string()) out.architecture = shorten(names[0].get_string());
  }
  out.modelType = text(config, {"model_type"});
  out.dtype = short_type(text(config, {"torch_dtype", "dtype"}));
  out.hiddenSize = whole(config, {"hidden_size", "n_embd", "d_model", "dim"});
  out.intermediateSize = whole(config, {"intermediate_size", "n_inner", "d_ff", "ffn_dim"});
  out.layers = whole(config, {"num_hidden_layers", "n_layer", "num_layers", "n_layers"});
  out.attentionHeads = whole(config, {"num_attention_heads", "n_head", "num_heads", "n_heads"});
  out.keyValueHeads = whole(config, {"num_key_value_heads", "multi_query_group_num", "n_kv_heads"});
  out.vocabSize = whole(config, {"vocab_size", "padded_vocab_size"});
  out.contextLength =
      whole(config, {"max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", "n_ctx"});
  out.experts = whole(config, {"num_local_experts", "n_routed_experts", "num_experts"});
  if (const bj::value* tied = look(config, {"tie_word_embeddings"}); tied && tied->is_bool())
    out.tieWordEmbeddings = tied->get_bool();
  if (const auto version = text(config, {"transformers_version"}); !version.empty())
    out.transformersVersion = version;
  if (const bj::value* found = look(config, {"quantization_config"}); found && found->is_object()) {
    const bj::object& quantization = found->get_object();
    out.quantization = text(quantization, {"quant_method", "quant_algo"});
    out.quantizationBits = whole(quantization, {"bits", "w_bit"});
    if (const bj::value* four = quantization.if_contains("load_in_4bit");
        four && four->is_bool() && four->get_bool())
      out.quantizationBits = 4;
    if (out.quantization->empty()) out.quantization = out.quantizationBits ? "quantized" : "unknown";
  }
}

AdapterDetails take_adapter(const bj::object& config) {
  AdapterDetails out;
  out.type = text(config, {"peft_type"});
  out.baseModel = text(config, {"base_model_name_or_path"});
  out.r = whole(config, {"r"});
  out.alpha = number(config, {"lora_alpha"});
  out.dropout = number(config, {"lora_dropout"});
  if (const bj::value* modules = config.if_contains("target_modules")) {
    if (modules->is_string()) out.targetModules.push_back(shorten(modules->get_string()));
    if (modules->is_array())
      for (const bj::value& module : modules->get_array())
        if (module.is_string() && out.targetModules.size() < 1000)
          out.targetModules.push_back(shorten(module.get_string()));
  }
  return out;
}

GenerationDetails take_generation(const bj::object& config) {
  return {number(config, {"temperature"}), number(config, {"top_p"}), whole(config, {"top_k"}),
          whole(config, {"max_new_tokens"})};
}

std::optional<std::int64_t> estimate_parameters(const ModelDetails& d) {
  static constexpr std::string_view kFamily[] = {"llama", "mistral", "qwen2", "qwen3", "gemma"};
  if (std::find(std::begin(kFamily), std::end(kFamily), d.modelType) == std::end(kFamily))
    return std::nullopt;
  if (!d.hiddenSize || !d.intermediateSize || !d.layers || !d.vocabSize || !d.attentionHeads ||
      *d.attentionHeads == 0)
    return std::nullopt;
  const auto hidden = static_cast<double>(*d.hiddenSize);
  const double kv = hidden * static_cast<double>(d.keyValueHeads.value_or(*d.attentionHeads)) /
                    static_cast<double>(*d.attentionHeads);
  const double layer = 2 * hidden * hidden + 2 * hidden * kv +
                       3 * hidden * static_cast<double>(*d.intermediateSize) + 2 * hidden;
  const double words =
      static_cast<double>(*d.vocabSize) * hidden * (d.tieWordEmbeddings.value_or(false) ? 1 : 2);
  const double total = layer * static_cast<double>(*d.layers) + words + hidden;
  if (total > 1e15) return std::nullopt;
  return static_cast<std::int64_t>(total);
}

void fields(Fields& f, AdapterDetails& a) {
  f.field("type", a.type);
  f.field("baseModel", a.baseModel);
  f.field("r", a.r);
  f.field("alpha", a.alpha);
  f.field("dropout", a.dropout);
  f.field("targetModules", a.targetModules);
}

void fields(Fields& f, GenerationDetails& g) {
  f.field("temperature", g.temperature);
  f.field("topP", g.topP);
  f.field("topK", g.topK);
  f.field("maxNewTokens", g.maxNewTokens);
}

void fields(Fields& f, TypeShare& t) {
  f.field("dtype", t.dtype);
  f.field("numbers", t.numbers);
}

void fields(Fields& f, ModelDetails& d) {
  f.field("format", d.format,
          {.doc = "safetensors, gguf, pytorch, adapter, config …; empty: not recognised"});
  f.field("architecture", d.architecture);
  f.field("modelType", d.modelType);
  f.field("dtype", d.dtype, {.doc = "Of most of the numbers"});
  f.field("parameterCount", d.parameterCount);
  f.field("estimated", d.estimated, {.doc = "Counted from the configuration, there being no weights"});
  f.field("tensorCount", d.tensorCount);
  f.field("weightFiles", d.weightFiles);
  f.field("weightBytes", d.weightBytes);
  f.field("dtypes", d.dtypes);
  f.field("hiddenSize", d.hiddenSize);
  f.field("intermediateSize", d.intermediateSize);
  f.field("layers", d.layers);
  f.field("attentionHeads", d.attentionHeads);
  f.field("keyValueHeads", d.keyValueHeads);
  f.field("vocabSize", d.vocabSize);
  f.field("contextLength", d.contextLength);
  f.field("experts", d.experts);
  f.field("tieWordEmbeddings", d.tieWordEmbeddings);
  f.field("tokenizer", d.tokenizer, {.doc = "The files of a tokenizer are there"});
  f.field("quantization", d.quantization);
  f.field("quantizationBits", d.quantizationBits);
  f.field("adapter", d.adapter);
  f.field("generation", d.generation);
  f.field("transformersVersion", d.transformersVersion);
}

}  // namespace lathe::models
