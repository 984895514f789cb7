#include "serving/health.h"

#include <gtest/gtest.h>

namespace lathe::serving {
namespace {

using std::chrono::seconds;
using Answer = Health::Answer;
using State = ReplicaState;

Health health(Answer answer, int in_a_row, int lasting, int status = 0) {
  return {.last = answer, .in_a_row = in_a_row, .lasting = seconds{lasting}, .status = status};
}
Finding found(State state, const Health& seen, const Work& work = {}, Duration age = seconds{100}) {
  return judge({}, state, seen, work, age).finding;
}
Work stalled(int lasting) {
  return {.under_way = 2, .stalled = seconds{lasting}};
}

TEST(Health, AGoodAnswerMakesReadyWhateverWasBefore) {
  for (const State state : {State::starting, State::unready, State::ready})
    EXPECT_EQ(found(state, health(Answer::good, 1, 0)), Finding::ready);
}

TEST(Health, WhileItStartsNothingButTimeCounts) {
  for (const Answer answer : {Answer::unknown, Answer::refused, Answer::silent, Answer::bad})
    EXPECT_EQ(found(State::starting, health(answer, 99, 99, 503)), Finding::unchanged);
  const auto late = judge({}, State::starting, health(Answer::refused, 99, 1800), {}, seconds{1800});
  EXPECT_EQ(late.finding, Finding::replace);
  EXPECT_EQ(late.reason, "StartTimeout");
}

TEST(Health, WhoListensNoMoreIsTakenOutAtOnceAndReplacedSoon) {
  EXPECT_EQ(found(State::ready, health(Answer::refused, 1, 0)), Finding::unready);
  EXPECT_EQ(found(State::unready, health(Answer::refused, 9, 9)), Finding::unready);
  EXPECT_EQ(found(State::unready, health(Answer::refused, 10, 10)), Finding::replace);
}

TEST(Health, SilenceIsTriedThriceAndExcusedWhileItGetsOn) {
  EXPECT_EQ(found(State::ready, health(Answer::silent, 2, 4)), Finding::unchanged);
  EXPECT_EQ(found(State::ready, health(Answer::silent, 3, 6)), Finding::unready);
  EXPECT_EQ(found(State::ready, health(Answer::silent, 99, 600), stalled(59)), Finding::unchanged);
  EXPECT_EQ(found(State::unready, health(Answer::silent, 30, 60)), Finding::replace);
}

TEST(Health, WorkWithoutProgressIsNoExcuseForEver) {
  EXPECT_EQ(found(State::ready, health(Answer::silent, 30, 60), stalled(60)), Finding::unready);
  EXPECT_EQ(found(State::ready, health(Answer::silent, 30, 59), stalled(600)), Finding::unchanged);
  EXPECT_EQ(found(State::ready, health(Answer::good, 1, 0), stalled(600)), Finding::ready)
      << "a long prefill: it answers, so it lives";
  EXPECT_EQ(found(State::unready, health(Answer::silent, 60, 119), stalled(119)), Finding::unready);
  EXPECT_EQ(found(State::unready, health(Answer::silent, 60, 120), stalled(120)), Finding::replace);
}

TEST(Health, TheReasonSaysWhatWasSeen) {
  auto verdict = judge({}, State::ready, health(Answer::bad, 3, 6, 503), {}, seconds{100});
  EXPECT_EQ(verdict.reason, "NotAnswering");
  EXPECT_NE(verdict.detail.en.find("503"), std::string::npos);
  verdict = judge({}, State::ready, health(Answer::silent, 30, 60), stalled(61), seconds{100});
  EXPECT_NE(verdict.detail.en.find("2 requests are under way, without progress for 61 s"), std::string::npos);
  EXPECT_NE(verdict.detail.zh.find("61 秒没有进展"), std::string::npos);
}

}  // namespace
}  // namespace lathe::serving
