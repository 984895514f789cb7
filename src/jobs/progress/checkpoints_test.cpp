#include "jobs/progress/checkpoints.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lathe::progress {
namespace {

/// One tensor of `numbers` floats, of which the last `missing` bytes have not been written.
std::string safetensors(std::uint64_t numbers, std::size_t missing = 0) {
  const auto bytes = std::to_string(numbers * 4);
  const std::string header = R"({"w":{"dtype":"F32","shape":[)" + std::to_string(numbers) +
                             R"(],"data_offsets":[0,)" + bytes + "]}}";
  std::string out(8, '\0');
  out[0] = static_cast<char>(header.size());
  out += header + std::string(numbers * 4 - missing, 'x');
  return out;
}

/// As torch.save writes it, as far as its ends go.
std::string archive(bool closed) {
  return "PK\x03\x04" + std::string(100, 'x') + (closed ? "PK\x05\x06" + std::string(18, '\0') : "");
}

class CheckpointsTest : public testing::Test {
 protected:
  CheckpointsTest() {
    std::string made = "/tmp/checkpoints-XXXXXX";
    root_ = mkdtemp(made.data());
  }
  ~CheckpointsTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name) << text;
  }
  /// Those that are complete, oldest first.
  std::vector<std::string> complete() {
    const Directory directory = *Directory::open(root_);
    std::vector<std::string> out;
    for (const auto& each : find_checkpoints(directory))
      if (is_complete(directory, each)) out.push_back(each.path);
    return out;
  }
  using Paths = std::vector<std::string>;
  std::string root_;
};

TEST_F(CheckpointsTest, AreFoundByNameInTheOrderOfTheirSteps) {
  write("checkpoint-400/model.safetensors", safetensors(2));
  write("run/checkpoint-30/model.safetensors", safetensors(2));
  write("checkpoint-200/weights.npz", "x");
  write("epoch-1/state", "x");
  for (const char* none :
       {".checkpoint-600.tmp/x", "checkpoint-600.tmp/x", "checkpoint-last/x", "checkpoint-/x"})
    write(none, "x");
  EXPECT_EQ(complete(), (Paths{"epoch-1", "run/checkpoint-30", "checkpoint-200", "checkpoint-400"}));
}

TEST_F(CheckpointsTest, AnEmptyOneIsNone) {
  std::filesystem::create_directories(root_ + "/checkpoint-10");
  write("checkpoint-5/config.json", "{}");
  EXPECT_EQ(complete(), Paths{});
  write("checkpoint-5/model.safetensors", safetensors(1));
  EXPECT_EQ(complete(), Paths{"checkpoint-5"});
}

TEST_F(CheckpointsTest, FilesThatWereCutOffAreNoticed) {
  write("checkpoint-1/model.safetensors", safetensors(100));
  write("checkpoint-2/model.safetensors", safetensors(100, 1));
  write("checkpoint-3/model.safetensors", "");
  write("checkpoint-4/optimizer.pt", archive(true));
  write("checkpoint-5/optimizer.pt", archive(false));
  write("checkpoint-6/pytorch_model.bin", "");
  write("checkpoint-7/pytorch_model.bin", "\x80\x02 an older pickle");
  write("checkpoint-8/global_step8/mp_rank_00_model_states.pt", archive(false));
  write("checkpoint-9/global_step9/mp_rank_00_model_states.pt", archive(true));
  EXPECT_EQ(complete(), (Paths{"checkpoint-1", "checkpoint-4", "checkpoint-7", "checkpoint-9"}))
      << "what a checkpoint holds is no checkpoint of its own";
}

TEST_F(CheckpointsTest, ShardsAreAllThere) {
  const std::string index = R"({"weight_map":{"a":"a.safetensors","b":"b.safetensors"}})";
  write("checkpoint-1/model.safetensors.index.json", index);
  write("checkpoint-1/a.safetensors", safetensors(1));
  write("checkpoint-2/model-00001-of-00002.safetensors", safetensors(1));
  write("checkpoint-3/text-of-00002.safetensors", safetensors(1));
  EXPECT_EQ(complete(), Paths{"checkpoint-3"});
  write("checkpoint-1/b.safetensors", safetensors(1));
  write("checkpoint-2/model-00002-of-00002.safetensors", safetensors(1));
  EXPECT_EQ(complete(), (Paths{"checkpoint-1", "checkpoint-2", "checkpoint-3"}));
  write("checkpoint-1/model.safetensors.index.json", index.substr(0, 30));
  EXPECT_EQ(complete(), (Paths{"checkpoint-2", "checkpoint-3"}));
}

TEST_F(CheckpointsTest, ATrainersOneIsThereWithItsState) {
  // In the order in which the Hugging Face Trainer writes.
  write("checkpoint-5/config.json", "{}");
  write("checkpoint-5/model.safetensors", safetensors(3));
  EXPECT_EQ(complete(), Paths{"checkpoint-5"}) << "nothing says yet that a Trainer writes it";
  write("checkpoint-5/training_args.bin", archive(true));
  EXPECT_EQ(complete(), Paths{});
  write("checkpoint-5/trainer_state.json", R"({"log_history": [{"loss": NaN, "text": "}\"{")");
  EXPECT_EQ(complete(), Paths{});
  write("checkpoint-5/trainer_state.json", "{\"log_history\": [{\"loss\": NaN, \"text\": \"}\\\"{\"}]}\n");
  EXPECT_EQ(complete(), Paths{"checkpoint-5"});
  write("checkpoint-10/model.safetensors", safetensors(3));
  write("elsewhere/checkpoint-3/model.safetensors", safetensors(3));
  EXPECT_EQ(complete(), (Paths{"elsewhere/checkpoint-3", "checkpoint-5"}))
      << "the one beside it has its state";
}

}  // namespace
}  // namespace lathe::progress
