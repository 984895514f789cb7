#include "jobs/progress/trainer_output.h"

#include <gtest/gtest.h>

#include <cstring>

namespace lathe::progress {
namespace {

std::string show(const Findings& f) {
  std::string out;
  for (const auto& m : f.metrics) {
    char value[32];
    std::snprintf(value, sizeof value, "%g", m.value);
    out += m.key + "=" + value + (m.step >= 0 ? "@" + std::to_string(m.step) : "") + " ";
  }
  if (f.step) out += "step " + std::to_string(*f.step);
  if (f.total_steps) out += " of " + std::to_string(*f.total_steps);
  return out;
}

struct Line {
  const char* text;
  const char* found;
};

TEST(TrainerOutput, ReadsLinesOfLogs) {
  const Line kLines[] = {
      {"{'loss': 1.25, 'learning_rate': 4e-05, 'epoch': 0.5}", "loss=1.25 learning_rate=4e-05 epoch=0.5 "},
      {"{'loss': '1.25', 'grad_norm': nan, 'epoch': '0.5'}", "loss=1.25 epoch=0.5 "},
      {"{\"step\": 7, \"loss\": 2, \"note\": \"a: b\"}", "loss=2@7 step 7"},
      {"{'eval_loss': 2.5, 'eval': {'acc': 0.5}, 'ok': True}", "eval_loss=2.5 eval/acc=0.5 "},
      {" 12%|█▏        | 48/400 [00:02<00:16, 21.3it/s]", "step 48 of 400"},
      {"  0%|  | 0/10 [00:00<?, ?it/s]\r 50%|█ | 5/10 [00:01<00:01]\r{'loss': 3.0}", "loss=3@5 step 5 of 10"},
      {"\033[32mINFO\033[0m step=10 loss=1.5 lr=0.1", "loss=1.5@10 lr=0.1@10 step 10"},
      {"epoch: 2, loss: 0.5, acc: 0.9", "epoch=2 loss=0.5 acc=0.9 "},
      {"2026-01-02 03:04:05 starting, port=8000", ""},
      {"{'loss': __import__('os')}", ""},
      {"{broken", ""},
      {"", ""},
  };
  for (const auto& [text, found] : kLines) EXPECT_EQ(show(read_log_line(text)), found) << text;
}

TEST(TrainerOutput, ADictAfterABarBelongsToItsStep) {
  EXPECT_EQ(show(read_log_line("{'loss': 3.0}", 48)), "loss=3@48 ");
}

TEST(TrainerOutput, ReadsTrainerState) {
  const auto f = read_trainer_state(
      R"({"global_step":20,"max_steps":40,"log_history":[{"loss":2.0,"epoch":0.5,"step":10},{"eval_loss":1.5,"step":20}]})");
  EXPECT_EQ(show(f), "loss=2@10 epoch=0.5@10 eval_loss=1.5@20 step 20 of 40");
  EXPECT_DOUBLE_EQ(*f.fraction, 0.5);
}

TEST(TrainerOutput, ReadsLlamaFactorysLog) {
  const auto f = read_trainer_log_line(
      R"({"current_steps": 5, "total_steps": 50, "loss": 1.5, "lr": 1e-4, "percentage": 10.0, "remaining_time": "0:01:00"})");
  EXPECT_EQ(show(f), "loss=1.5@5 learning_rate=0.0001@5 step 5 of 50");
  EXPECT_DOUBLE_EQ(*f.fraction, 0.1);
}

TEST(TrainerOutput, ReadsEvaluations) {
  EXPECT_EQ(
      show(read_lm_eval(
          R"({"results":{"hellaswag":{"acc,none":0.5,"acc_stderr,none":"N/A","em,strict":0.25,"alias":"h"}}})")),
      "hellaswag/acc=0.5 hellaswag/em,strict=0.25 ");
  EXPECT_EQ(show(read_opencompass_summary(
                "dataset,version,metric,mode,llama\nmmlu,1,accuracy,gen,45.5\nceval,-,-,-,-\n")),
            "mmlu/accuracy=45.5 ");
  EXPECT_EQ(show(read_opencompass_result(R"({"accuracy": 45.5, "details": {}})", "mmlu")),
            "mmlu/accuracy=45.5 ");
  EXPECT_EQ(show(read_metrics_json(R"({"perplexity": 5.5, "nested": {"f1": 1}, "name": "x"})")),
            "perplexity=5.5 nested/f1=1 ");
  EXPECT_EQ(show(read_metrics_json(R"([{"key":"loss","value":"2","step":3}])")), "loss=2@3 ");
}

std::string field(int number, int type, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | type));
  if (type == 2) out += static_cast<char>(bytes.size());
  return out + bytes;
}
template <class T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}
std::string record(const std::string& event) {
  return raw<std::uint64_t>(event.size()) + "CRC1" + event + "CRC2";
}

TEST(TrainerOutput, ReadsTensorBoardEventsAndStopsAtAHalfRecord) {
  const std::string old_form = field(1, 2, field(1, 2, "train/loss") + field(2, 5, raw(1.5F)));
  const std::string new_form = field(1, 2, field(1, 2, "train/lr") + field(8, 2, field(5, 2, raw(0.25F))));
  auto event = [](char step, const std::string& summary) {
    return record(field(1, 1, raw(1.7e9)) + field(2, 0, std::string(1, step)) + field(5, 2, summary));
  };
  const std::string whole = record(field(3, 2, "brain.Event:2")) + event(3, old_form) + event(4, new_form);
  std::size_t consumed = 0;
  const auto f = read_event_file(whole + whole.substr(0, 20), consumed);
  EXPECT_EQ(show(f), "train/loss=1.5@3 train/lr=0.25@4 step 4");
  EXPECT_EQ(consumed, whole.size());
  EXPECT_EQ(f.metrics[0].time, Time{std::chrono::seconds{1700000000}});
}

TEST(TrainerOutput, DamageIsPassedOver) {
  std::string noise;
  unsigned state = 1;
  for (int i = 0; i < 4000; ++i) noise += static_cast<char>((state = state * 1103515245 + 12345) >> 16);
  std::size_t consumed = 0;
  read_event_file(noise, consumed);
  read_event_file(record(noise.substr(0, 100)), consumed);
  read_log_line(noise);
  read_trainer_state(noise);
  read_opencompass_summary(noise);
  EXPECT_EQ(show(read_metrics_json("[1,2")), "");
}

}  // namespace
}  // namespace lathe::progress
