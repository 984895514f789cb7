#include "algorithms/algorithms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "algorithms/definition.h"
#include "algorithms/embedded.h"
#include "db/test_database.h"

namespace lathe::algorithms {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

class BuiltIn : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = Algorithms::open({.directory = {}, .code_root = {}, .folder = folder_.file("algorithms")});
    ASSERT_TRUE(opened.ok()) << opened.error().describe(Language::en);
    algorithms_ = std::move(*opened);
  }
  const Algorithm& algorithm(std::string_view id) {
    const Algorithm* found = algorithms_->find(id);
    if (!found) throw std::runtime_error("no algorithm " + std::string(id));
    return *found;
  }

  db::TestFolder folder_;
  std::unique_ptr<Algorithms> algorithms_;
};

const std::vector<NamedValue> kPlaces = {
    {"model_dir", "/m"}, {"input_dir", "/i"},     {"output_dir", "/o"},           {"checkpoint_dir", "/c"},
    {"work_dir", "/w"},  {"algorithm_dir", "/a"}, {"fine_tune_strategy", "LoRA"}, {"port", "9000"},
    {"name", "served"}};

TEST_F(BuiltIn, AreAllThereAndFillTheirCommands) {
  std::vector<std::string> ids;
  for (const auto& each : algorithms_->all()) {
    ids.push_back(each.id);
    std::vector<NamedValue> given;
    for (const auto& parameter : each.parameters)
      if (parameter.required && parameter.value.empty()) given.push_back({parameter.name, "x"});
    const auto settled = settle(each, given, "hyperParameters");
    ASSERT_TRUE(settled.ok()) << each.id << settled.error().describe(Language::en);
    const auto argv = make_argv(each, kPlaces, *settled);
    ASSERT_TRUE(argv.ok()) << each.id << argv.error().describe(Language::en);
    for (const auto& word : *argv) EXPECT_EQ(word.find("${"), std::string::npos) << each.id << ": " << word;
    EXPECT_TRUE(make_env(each, kPlaces, *settled).ok());
  }
  EXPECT_THAT(ids,
              IsSupersetOf({"tiny-llm-pretrain", "tiny-llm-finetune", "tiny-llm-evaluate", "tiny-llm-serve",
                            "llama-factory-lora", "llama-factory-full", "hf-peft-lora", "hf-trainer-full",
                            "torchtune-lora", "lm-evaluation-harness", "opencompass", "vllm", "sglang"}));
}

TEST_F(BuiltIn, CodeOfTinyLlmIsOnTheDisk) {
  const auto& tuning = algorithm("tiny-llm-finetune");
  for (const char* file : {"finetune.py", "model.py", "trainer.py", "storage.py"})
    EXPECT_TRUE(std::filesystem::is_regular_file(tuning.code_dir + "/" + file)) << file;
  EXPECT_FALSE(std::filesystem::exists(tuning.code_dir + "/demo.py"));
  EXPECT_EQ(algorithm("vllm").code_dir, "");
  // Found again, not written again.
  const auto before = std::filesystem::last_write_time(tuning.code_dir);
  ASSERT_TRUE(
      Algorithms::open({.directory = {}, .code_root = {}, .folder = folder_.file("algorithms")}).ok());
  EXPECT_EQ(std::filesystem::last_write_time(tuning.code_dir), before);
}

TEST_F(BuiltIn, TuningTakesTheDocumentedHyperParameters) {
  const std::vector<NamedValue> given = {{"learning_rate", "1e-4"}, {"per_device_train_batch_size", "1"},
                                         {"num_train_epochs", "1"}, {"save_strategy", "steps"},
                                         {"save_steps", "200"},     {"lora_alpha", "16"},
                                         {"lora_r", "8"},           {"lora_dropout", "0.05"}};
  const auto settled = settle(algorithm("tiny-llm-finetune"), given, "hyperParameters");
  ASSERT_TRUE(settled.ok()) << settled.error().describe(Language::en);
  const auto argv = make_argv(algorithm("tiny-llm-finetune"), kPlaces, *settled);
  ASSERT_TRUE(argv.ok());
  EXPECT_THAT(
      std::vector(argv->begin(), argv->begin() + 14),
      ElementsAre("python3", "/a/finetune.py", "--model_dir", "/m", "--input_dir", "/i", "--output_dir", "/o",
                  "--checkpoint_dir", "/c", "--fine_tune_strategy", "LoRA", "--learning_rate", "1e-4"));
  // LLaMA-Factory calls the same thing by another name.
  const auto lf = settle(algorithm("llama-factory-lora"),
                         std::vector<NamedValue>{{"dataset", "d"}, {"lora_r", "4"}}, "hyperParameters");
  ASSERT_TRUE(lf.ok());
  const auto words = make_argv(algorithm("llama-factory-lora"), kPlaces, *lf);
  ASSERT_TRUE(words.ok());
  EXPECT_THAT(*words, IsSupersetOf({"--lora_rank", "4"}));
  EXPECT_THAT(*words, Not(Contains("--lora_r")));
}

TEST_F(BuiltIn, SettleNamesEverythingThatIsWrong) {
  const std::vector<NamedValue> given = {{"learning_rate", "fast"},
                                         {"save_strategy", "never"},
                                         {"save_steps", "0"},
                                         {"rank", "8"},
                                         {"seed", "1"},
                                         {"seed", "2"}};
  const auto settled = settle(algorithm("tiny-llm-finetune"), given, "hp");
  ASSERT_FALSE(settled.ok());
  std::vector<std::string> fields;
  for (const auto& violation : settled.error().violations) fields.push_back(violation.field);
  EXPECT_THAT(fields,
              ElementsAre("hp.learning_rate", "hp.save_strategy", "hp.save_steps", "hp.rank", "hp.seed"));
  const auto none = settle(algorithm("opencompass"), {}, "hp");
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().violations.at(0).field, "hp.datasets");
}

TEST_F(BuiltIn, ValuesStayValues) {
  const std::vector<NamedValue> hostile = {
      {"tasks", "a; rm -rf / ${model_dir} $(id)"}, {"limit", "3"}, {"log_samples", "true"}};
  const auto settled = settle(algorithm("lm-evaluation-harness"), hostile, "hp");
  ASSERT_TRUE(settled.ok());
  const auto argv = make_argv(algorithm("lm-evaluation-harness"), kPlaces, *settled);
  ASSERT_TRUE(argv.ok());
  EXPECT_THAT(*argv, Contains("a; rm -rf / ${model_dir} $(id)"));
  EXPECT_THAT(*argv, Contains("pretrained=/m,dtype=auto"));
  EXPECT_THAT(*argv, Contains("--log_samples"));
  EXPECT_THAT(*argv, Not(Contains("--apply_chat_template")));
  EXPECT_THAT(*argv, Not(Contains("--num_fewshot")));
}

TEST_F(BuiltIn, WordsBecomeSeveralWords) {
  const auto settled =
      settle(algorithm("opencompass"), std::vector<NamedValue>{{"datasets", "ceval_gen, mmlu_gen"}}, "hp");
  ASSERT_TRUE(settled.ok());
  const auto argv = make_argv(algorithm("opencompass"), kPlaces, *settled);
  ASSERT_TRUE(argv.ok());
  const auto at = std::find(argv->begin(), argv->end(), "--datasets");
  ASSERT_NE(at, argv->end());
  EXPECT_EQ(*(at + 1), "ceval_gen");
  EXPECT_EQ(*(at + 2), "mmlu_gen");
  EXPECT_THAT(
      make_env(algorithm("opencompass"), std::vector<NamedValue>{{"model_dir", "/m"}}, *settled).value(),
      IsEmpty());
}

TEST_F(BuiltIn, NeedsAreNamed) {
  const auto settled = settle(algorithm("tiny-llm-evaluate"), {}, "hp");
  const auto argv = make_argv(algorithm("tiny-llm-evaluate"), std::vector<NamedValue>{{"model_dir", "/m"}},
                              settled.value());
  ASSERT_FALSE(argv.ok());
  EXPECT_EQ(argv.error().violations.at(0).field, "input_dir");
}

TEST_F(BuiltIn, ServingIsFoundByWhatTheModelIs) {
  models::ModelFacts facts{.format = "safetensors", .architecture = "LlamaForCausalLM"};
  ASSERT_NE(algorithms_->serving_for(facts), nullptr);
  EXPECT_EQ(algorithms_->serving_for(facts)->id, "tiny-llm-serve");
  facts.tokenizer = true;
  EXPECT_EQ(algorithms_->serving_for(facts)->id, "vllm");
  facts.architecture = "SomethingElse";
  EXPECT_EQ(algorithms_->serving_for(facts)->id, "sglang");
  facts.format = "onnx";
  EXPECT_EQ(algorithms_->serving_for(facts), nullptr);
}

TEST_F(BuiltIn, GetWantsTheRightKind) {
  EXPECT_TRUE(algorithms_->get("vllm", Kind::serving, "algorithmId").ok());
  const auto wrong = algorithms_->get("vllm", Kind::fine_tune, "algorithmId");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().violations.at(0).field, "algorithmId");
  EXPECT_THAT(wrong.error().describe(Language::en), HasSubstr("tiny-llm-finetune"));
}

std::string definition(const std::string& more, const std::string& kind = "evaluation") {
  return R"({ // a comment
    "id": "mine", "kind": ")" +
         kind + R"(", "name": {"zh": "我的", "en": "mine"}, "description": {"zh": "述", "en": "d"},)" + more +
         "}";
}

std::string violation_of(const std::string& text) {
  const auto read = read_definition(text, Format::json);
  if (read.ok()) return "";
  return read.error().violations.empty() ? read.error().message.en : read.error().violations[0].field;
}

TEST(Definition, SaysWhichFieldIsWrong) {
  EXPECT_EQ(violation_of(definition(R"("command": ["x"],)")), "");
  EXPECT_EQ(violation_of("{}"), "id");
  EXPECT_THAT(violation_of("{"), HasSubstr("not valid JSON"));
  EXPECT_EQ(violation_of(definition("")), "command");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"], "comand": [])")), "comand");
  EXPECT_EQ(
      violation_of(definition(R"("command": ["x"], "parameters": [{"nmae": "a", "name": "b", "type": "text",
    "description": {"zh": "a", "en": "a"}}])")),
      "parameters[0].nmae");
  EXPECT_EQ(violation_of(definition(R"("command": ["${nothing}"])")), "command[0]");
  EXPECT_EQ(violation_of(definition(R"("command": ["${model_dir}"])")), "command[0]");
  EXPECT_EQ(violation_of(definition(R"("command": ["${model_dir}"], "needs": ["model_dir"])")), "");
  EXPECT_EQ(violation_of(definition(R"("command": ["x", "${port}"])")), "command[1]");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"], "needs": ["home"])")), "needs[0]");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"], "options": [{"when": "y", "words": ["z"]}])")),
            "options[0].when");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"], "parameters": [{"name": "a", "type": "integer",
    "default": "1.5", "description": {"zh": "a", "en": "a"}}])")),
            "parameters[0].default");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"], "parameters": [{"name": "work_dir", "type": "text",
    "description": {"zh": "a", "en": "a"}}])")),
            "parameters[0].name");
  EXPECT_EQ(violation_of(definition(R"("command": ["x"])", "serving")), "port");
  EXPECT_EQ(violation_of(definition(R"("command": ["x", "${port}"], "port": 80)", "serving")), "readyPath");
}

TEST(Definition, OfEachShippedFileIsNamedAsItsFile) {
  for (const auto& file : embedded_definitions()) {
    const auto read = read_definition(file.content, Format::yaml);
    ASSERT_TRUE(read.ok()) << file.name << ": " << read.error().describe(Language::en);
    EXPECT_EQ(read->algorithm.id + ".yaml", file.name);
    EXPECT_EQ(file.content.substr(0, 2), "# ")
        << file.name << " does not say what version it was written for";
  }
  EXPECT_GE(embedded_definitions().size(), 13U);
}

constexpr std::string_view kYaml = R"(# Mine.
id: mine
kind: evaluation
name: {zh: 我的, en: "mine: really"}
description:
  zh: 述
  en: >-
    Two lines
    of text.
command: |
  run --model ${model_dir}   # is no comment here
  --no ${off}
needs: [model_dir]
parameters:
  - {name: off, type: text, default: no, choices: [no, 1.0, "yes"], description: {zh: 甲, en: 1}}
  - name: rate
    type: number
    default: 1e-4
    min: 0.5e-4
    max: +2
    description: {zh: 乙, en: b}
)";

TEST(Definition, OfYamlHasItsWordsAndValues) {
  const auto read = read_definition(kYaml, Format::yaml);
  ASSERT_TRUE(read.ok()) << read.error().describe(Language::en);
  const Algorithm& a = read->algorithm;
  EXPECT_THAT(a.command, ElementsAre("run", "--model", "${model_dir}", "#", "is", "no", "comment", "here",
                                     "--no", "${off}"));
  EXPECT_EQ(a.name.en, "mine: really");
  EXPECT_EQ(a.description.en, "Two lines of text.");
  ASSERT_EQ(a.parameters.size(), 2U);
  EXPECT_EQ(a.parameters[0].value, "no");
  EXPECT_THAT(a.parameters[0].choices, ElementsAre("no", "1.0", "yes"));
  EXPECT_EQ(a.parameters[0].description.en, "1");
  EXPECT_EQ(a.parameters[1].value, "1e-4");
  EXPECT_EQ(a.parameters[1].min, 0.5e-4);
  EXPECT_EQ(a.parameters[1].max, 2);
}

struct Wrong {
  std::string_view instead_of, put, expected;
};
class WrongYaml : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongYaml, IsToldWithItsLine) {
  std::string text(kYaml);
  const auto at = text.find(GetParam().instead_of);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, GetParam().instead_of.size(), GetParam().put);
  const auto read = read_definition(text, Format::yaml);
  ASSERT_FALSE(read.ok());
  EXPECT_THAT(read.error().describe(Language::en), HasSubstr(std::string(GetParam().expected)));
}

INSTANTIATE_TEST_SUITE_P(
    Definition, WrongYaml,
    ::testing::Values(Wrong{"id: mine", "id: [mine]", "id must be a string (line 2)"},
                      Wrong{"id: mine", "identity: mine", "id is required (line 2)"},
                      Wrong{"id: mine", "identity: mine", "identity is not a field of a definition (line 2)"},
                      Wrong{"kind: evaluation", "kind: training", "kind must be one of"},
                      Wrong{"kind: evaluation", "kind: training", "(line 3)"},
                      Wrong{"  zh: 述\n", "", "description.zh is required (line 5)"},
                      Wrong{"${off}", "${of}", "has the unknown placeholder ${of} (line 10)"},
                      Wrong{"--no", "'--no'", "command is text, which is split at blanks"},
                      Wrong{"needs: [model_dir]", "needs: model_dir", "needs must be an array (line 13)"},
                      Wrong{"default: no,", "default: false,",
                            "parameters[0].default must be one of: no, 1.0, yes (line 15)"},
                      Wrong{"default: 1e-4", "default: fast",
                            "parameters[1].default must be a number (line 18)"},
                      Wrong{"max: +2", "max: .inf", "parameters[1].max must be a number (line 20)"},
                      Wrong{"max: +2", "max: '1e-5'", "parameters[1].max is less than min (line 20)"},
                      Wrong{"max: +2", "max: 2\n    max: 3", "line 21: has the key max twice"},
                      Wrong{"max: +2", "max: &a 2", "line 20: anchors are not read"},
                      Wrong{"max: +2", "max: *a", "line 20: aliases are not read"},
                      Wrong{"max: +2", "max: !!float 2", "line 20: tags are not read"},
                      Wrong{"max: +2", "? [a]\n    : 2", "line 20: a key must be text"},
                      Wrong{"# Mine.", "# Mine.\n---\na: b\n---", "there is a second document"},
                      Wrong{"id: mine", "id: \tmine\n\tkind: x", "line 3"},
                      Wrong{"zh: 我的", "zh: \xff\xfe", "not valid YAML"}));

TEST(Definition, OfYamlIsBounded) {
  const auto error = [](const std::string& text) {
    const auto read = read_definition(text, Format::yaml);
    return read.ok() ? std::string() : read.error().describe(Language::en);
  };
  EXPECT_THAT(error(std::string(40, '[') + std::string(40, ']')), HasSubstr("is nested too deep"));
  EXPECT_THAT(error(std::string(500'000, '[')), HasSubstr("is nested too deep"));
  EXPECT_THAT(error("a: " + std::string(2 << 20, 'x')), HasSubstr("the file is too large"));
  EXPECT_THAT(error(""), HasSubstr("there is nothing in it"));
  EXPECT_THAT(error("# only\n"), HasSubstr("there is nothing in it"));
  EXPECT_THAT(error("text"), HasSubstr("must be an object"));
}

TEST(OwnFiles, ReplaceTheBuiltInAndAreNamedWhenWrong) {
  const db::TestFolder folder;
  std::filesystem::create_directories(folder.file("own"));
  const auto open = [&] {
    return Algorithms::open(
        {.directory = folder.file("own"), .code_root = {}, .folder = folder.file("algorithms")});
  };
  std::ofstream(folder.file("own/a.json")) << definition(R"("command": ["x"])");
  std::ofstream(folder.file("own/b.json"))
      << R"({"id": "vllm", "kind": "serving", "name": {"zh": "v", "en": "v"},
    "description": {"zh": "v", "en": "v"}, "command": ["mine", "${port}"], "port": 1, "readyPath": "/"})";
  auto opened = open();
  ASSERT_TRUE(opened.ok()) << opened.error().describe(Language::en);
  EXPECT_NE((*opened)->find("mine"), nullptr);
  EXPECT_EQ((*opened)->find("vllm")->command[0], "mine");
  EXPECT_NE((*opened)->find("sglang"), nullptr);

  std::ofstream(folder.file("own/c.json")) << definition(R"("command": [])");
  opened = open();
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("own/c.json"));
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("command"));

  std::filesystem::remove(folder.file("own/c.json"));
  std::ofstream(folder.file("own/c.yaml")) << "id: c\nkind: serving\n";
  opened = open();
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("own/c.yaml"));
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("command is required (line 1)"));
  std::filesystem::remove(folder.file("own/c.yaml"));

  std::ofstream(folder.file("own/d.json")) << definition(R"("command": ["y"])");
  opened = open();
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("another file has the id mine"));

  std::filesystem::remove(folder.file("own/d.json"));
  std::ofstream(folder.file("own/e.json"))
      << R"({"id": "coded", "kind": "evaluation", "name": {"zh": "v", "en": "v"},
    "description": {"zh": "v", "en": "v"}, "command": ["x"], "code": "nowhere"})";
  opened = open();
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().describe(Language::en), HasSubstr("coded"));
}

}  // namespace
}  // namespace lathe::algorithms
