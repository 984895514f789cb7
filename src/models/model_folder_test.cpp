#include "models/model_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/json.h"
#include "db/test_database.h"
#include "models/gguf.h"
#include "models/safetensors.h"

namespace lathe::models {
namespace {

/// A file in memory, as the readers want it.
ReadAt from(const std::string& bytes) {
  return [&bytes](std::uint64_t offset, std::span<char> into) -> Result<std::size_t> {
    if (offset >= bytes.size()) return std::size_t{0};
    const std::size_t count = std::min<std::size_t>(into.size(), bytes.size() - offset);
    std::memcpy(into.data(), bytes.data() + offset, count);
    return count;
  };
}

std::string little_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
  return out;
}

std::string safetensors(const std::string& header, std::size_t data) {
  return little_endian(header.size(), 8) + header + std::string(data, '\x3f');
}

Result<Tensors> read(const std::string& file) {
  return read_safetensors(file.size(), from(file));
}

std::string refusal(const std::string& file) {
  const auto read_file = read(file);
  return read_file.ok() ? "" : read_file.error().message.en;
}

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}  )";

TEST(Safetensors, CountsWhatTheHeaderSays) {
  const auto tensors = read(safetensors(kTwo, 32));
  ASSERT_TRUE(tensors.ok()) << tensors.error().message.en;
  EXPECT_EQ(tensors->count, 2);
  EXPECT_EQ(tensors->numbers, 10);
  EXPECT_EQ(tensors->by_type.at("F32"), 6);
  EXPECT_EQ(tensors->by_type.at("BF16"), 4);
}

TEST(Safetensors, ReadsAHeaderOfManyChunks) {
  std::string header = "{";
  for (int i = 0; i < 20'000; ++i) {
    header += (i ? ",\"layers." : "\"layers.") + std::to_string(i) +
              R"(.weight":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) + "," +
              std::to_string(i + 1) + "]}";
  }
  const auto tensors = read(safetensors(header + "}", 20'000));
  ASSERT_TRUE(tensors.ok()) << tensors.error().message.en;
  EXPECT_EQ(tensors->count, 20'000);
}

TEST(Safetensors, AcceptsScalarsEmptyTensorsAndTypesOfTheFuture) {
  EXPECT_TRUE(read(safetensors("{}", 0)).ok());
  EXPECT_TRUE(read(safetensors(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4)).ok());
  EXPECT_TRUE(read(safetensors(R"({"e":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]}})", 0)).ok());
  const auto later = read(safetensors(R"({"n":{"dtype":"F3_NEW","shape":[8],"data_offsets":[0,3]}})", 3));
  ASSERT_TRUE(later.ok());
  EXPECT_EQ(later->by_type.at("other"), 8);
}

TEST(Safetensors, RefusesWhatDoesNotAddUp) {
  const auto one = [](const std::string& body) { return "{\"t\":" + body + "}"; };
  const std::string cases[] = {
      "",
      "1234567",
      little_endian(1'000'000, 8) + "{}",
      little_endian(kMaxSafetensorsHeader + 1, 8) + "{}",
      little_endian(~0ULL, 8) + "{}",
      safetensors("", 0),
      safetensors("[]", 0),
      safetensors("{", 0),
      safetensors("{}{}", 0),
      safetensors("{} x", 0),
      safetensors("{\"t\":1}", 0),
      safetensors("{\"t\":[]}", 0),
      safetensors(one("{}"), 0),
      safetensors(one(R"({"dtype":"F32","shape":[1]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})"), 4),
      safetensors(one(R"({"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]})"),
                  4),
      safetensors(one(R"({"dtype":"F32","shape":[1],"data_offsets":[1,5]})"), 5),
      safetensors(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]})"), 4),
      safetensors(kTwo, 31),
      safetensors(kTwo, 33),
      safetensors(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6),
      safetensors(R"({"__metadata__":{"x":{}}})", 0),
  };
  for (const auto& file : cases) EXPECT_NE(refusal(file), "") << file.substr(0, 200);
  EXPECT_NE(refusal(safetensors(kTwo, 30)).find("2 bytes are missing"), std::string::npos);
  EXPECT_NE(
      refusal(safetensors(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), 4)).find("tensor t"),
      std::string::npos);
}

TEST(Safetensors, AnyPrefixIsRefused) {
  const std::string file = safetensors(kTwo, 32);
  for (std::size_t length = 0; length < file.size(); ++length)
    EXPECT_NE(refusal(file.substr(0, length)), "") << length;
}

TEST(Scale, IsForPeople) {
  EXPECT_EQ(human_scale(0), "");
  EXPECT_EQ(human_scale(999), "999");
  EXPECT_EQ(human_scale(357'000), "357K");
  EXPECT_EQ(human_scale(494'032'768), "494M");
  EXPECT_EQ(human_scale(999'700'000), "1B");
  EXPECT_EQ(human_scale(6'738'415'616), "6.7B");
  EXPECT_EQ(human_scale(7'000'000'000), "7B");
  EXPECT_EQ(human_scale(70'553'706'496), "70.6B");
  EXPECT_EQ(human_scale(671'026'419'200), "671B");
}

/// A GGUF file with one tensor of 6 numbers and as many keys as it takes.
std::string gguf() {
  const auto text = [](const std::string& s) { return little_endian(s.size(), 8) + s; };
  std::string out = "GGUF" + little_endian(3, 4) + little_endian(1, 8) + little_endian(4, 8);
  out += text("general.architecture") + little_endian(8, 4) + text("llama");
  out += text("general.file_type") + little_endian(4, 4) + little_endian(15, 4);
  out += text("llama.context_length") + little_endian(4, 4) + little_endian(4096, 4);
  out += text("tokenizer.ggml.tokens") + little_endian(9, 4) + little_endian(8, 4) + little_endian(2, 8) +
         text("a") + text("bc");
  out += text("blk.0.weight") + little_endian(2, 4) + little_endian(2, 8) + little_endian(3, 8) +
         little_endian(0, 4) + little_endian(0, 8);
  return out;
}

TEST(Gguf, ReadsTheHeadAndRefusesAnyPrefixOfIt) {
  const std::string file = gguf();
  const auto header = read_gguf(file.size(), from(file));
  ASSERT_TRUE(header.ok()) << header.error().message.en;
  EXPECT_EQ(header->architecture, "llama");
  EXPECT_EQ(header->type, "Q4_K_M");
  EXPECT_EQ(header->context_length, 4096);
  EXPECT_EQ(header->tensors, 1);
  EXPECT_EQ(header->numbers, 6);
  for (std::size_t length = 0; length < file.size(); ++length) {
    const std::string cut = file.substr(0, length);
    EXPECT_FALSE(read_gguf(cut.size(), from(cut)).ok()) << length;
  }
}

TEST(Gguf, BelievesNoLength) {
  const std::string file = gguf();
  for (std::size_t at = 8; at < file.size(); ++at) {
    std::string wrong = file;
    for (std::size_t i = at; i < std::min(at + 8, wrong.size()); ++i) wrong[i] = '\xff';
    (void)read_gguf(wrong.size(), from(wrong));  // any answer, at once
  }
}

class Folder : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& content) {
    ASSERT_TRUE(directory_.write_file(Path::parse(name, "p").value(), content).ok());
  }
  Result<FolderReport> look() { return read_model_folder(directory_); }

  db::TestFolder folder_;
  Directory directory_ = Directory::create(folder_.file("model")).value();
};

const std::string kConfig = R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":96,
  "intermediate_size":256,"num_hidden_layers":3,"num_attention_heads":4,"vocab_size":257,
  "tie_word_embeddings":true,"max_position_embeddings":128,"torch_dtype":"bfloat16","transformers_version":"4.40.0"})";

TEST_F(Folder, TellsAModelByItsFiles) {
  put("config.json", kConfig);
  put("model.safetensors", safetensors(kTwo, 32));
  put("model.fp16.safetensors", "another precision, not looked at");
  put("generation_config.json", R"({"temperature":0.6,"top_p":0.9,"max_new_tokens":512})");
  const auto report = look();
  ASSERT_TRUE(report.ok()) << report.error().message.en;
  const ModelDetails& d = report->details;
  EXPECT_EQ(d.format, "safetensors");
  EXPECT_EQ(d.architecture, "LlamaForCausalLM");
  EXPECT_EQ(d.modelType, "llama");
  EXPECT_EQ(d.dtype, "F32");  // of the weights, whatever the configuration says
  EXPECT_EQ(d.parameterCount, 10);
  EXPECT_FALSE(d.estimated);
  EXPECT_EQ(d.weightFiles, 1);
  EXPECT_EQ(d.contextLength, 128);
  EXPECT_EQ(d.generation->temperature, 0.6);
  EXPECT_EQ(d.transformersVersion, "4.40.0");
  EXPECT_EQ(report->config_text, kConfig);
  EXPECT_EQ(facts_of(d).parameters, 10);
  const auto back = json::parse_as<ModelDetails>(json::write(d));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->dtypes.size(), 2U);
}

TEST_F(Folder, EstimatesAConfigurationWithoutWeights) {
  put("config.json", kConfig);
  const auto report = look();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->details.format, "config");
  EXPECT_EQ(report->details.dtype, "BF16");
  EXPECT_TRUE(report->details.estimated);
  EXPECT_EQ(human_scale(*report->details.parameterCount), "357K");
}

TEST_F(Folder, AddsUpShards) {
  put("config.json", kConfig);
  put("model-00001-of-00002.safetensors", safetensors(kTwo, 32));
  put("model-00002-of-00002.safetensors", safetensors(kTwo, 32));
  put("model.safetensors.index.json",
      R"({"metadata":{"total_size":64},"weight_map":{"a":"model-00001-of-00002.safetensors",
          "b":"model-00002-of-00002.safetensors"}})");
  const auto report = look();
  ASSERT_TRUE(report.ok()) << report.error().message.en;
  EXPECT_EQ(report->details.parameterCount, 20);
  EXPECT_EQ(report->details.weightFiles, 2);

  ASSERT_TRUE(directory_.remove_file(Path::parse("model-00002-of-00002.safetensors", "p").value()).ok());
  const auto missing = look();
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.en.find("model-00002-of-00002.safetensors: this shard is missing"),
            std::string::npos);
}

TEST_F(Folder, SaysWhichFileIsDamaged) {
  put("model.safetensors", safetensors(kTwo, 10));
  const auto cut = look();
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().message.en, "model.safetensors: the file is incomplete: 22 bytes are missing");
  EXPECT_NE(cut.error().message.zh.find("22 字节"), std::string::npos);

  put("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n");
  const auto pointer = look();
  ASSERT_FALSE(pointer.ok());
  EXPECT_NE(pointer.error().message.en.find("git lfs pull"), std::string::npos);
}

TEST_F(Folder, TellsAnAdapter) {
  put("adapter_config.json", R"({"peft_type":"LORA","r":8,"lora_alpha":16,"lora_dropout":0.05,
    "base_model_name_or_path":"/models/base","target_modules":["q_proj","v_proj"]})");
  put("adapter_model.safetensors", safetensors(kTwo, 32));
  const auto report = look();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->details.format, "adapter");
  EXPECT_EQ(report->details.adapter->r, 8);
  EXPECT_EQ(report->details.adapter->targetModules.size(), 2U);
  EXPECT_EQ(facts_of(report->details).adapter_base, "/models/base");
}

TEST_F(Folder, CountsPackedWeights) {
  put("config.json", R"({"model_type":"llama","quantization_config":{"quant_method":"gptq","bits":4}})");
  put("model.safetensors", safetensors(R"({"l.qweight":{"dtype":"I32","shape":[4],"data_offsets":[0,16]},)"
                                       R"("l.scales":{"dtype":"F16","shape":[2],"data_offsets":[16,20]},)"
                                       R"("norm":{"dtype":"F16","shape":[3],"data_offsets":[20,26]}})",
                                       26));
  const auto report = look();
  ASSERT_TRUE(report.ok()) << report.error().message.en;
  EXPECT_EQ(report->details.parameterCount, 4 * 8 + 3);
  EXPECT_EQ(facts_of(report->details).quantization, "gptq");
}

TEST_F(Folder, NeverOpensAPickle) {
  put("pytorch_model.bin", "cos\nsystem\n(S'true'\ntR.");
  const auto report = look();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->details.format, "pytorch");
  EXPECT_FALSE(report->details.parameterCount);
}

TEST_F(Folder, TakesNonsenseForNoModel) {
  put("config.json", "{ not json");
  put("deploy.json", "[1, 2]");
  put("notes.txt", "hello");
  const auto report = look();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->details.format, "");
  EXPECT_EQ(report->config_text, "");
  EXPECT_EQ(report->deploy_text, "");

  put("config.json", R"({"architectures":[7],"model_type":["x"],"hidden_size":"96","vocab_size":-1,
    "num_hidden_layers":1e300,"quantization_config":3,"tie_word_embeddings":"yes"})");
  const auto odd = look();
  ASSERT_TRUE(odd.ok());
  EXPECT_EQ(odd->details.architecture, "");
  EXPECT_FALSE(odd->details.hiddenSize);
  EXPECT_FALSE(odd->details.parameterCount);
}

}  // namespace
}  // namespace lathe::models
