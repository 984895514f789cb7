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
Finding found(State state, const Health& seen, bool busy = false, Duration age = seconds{100}) {
  return judge({}, state, seen, busy, age).finding;
}

TEST(Health, AGoodAnswerMakesReadyWhateverWasBefore) {
  for (const State state : {State::starting, State::unready, State::ready})
    EXPECT_EQ(found(state, health(Answer::good, 1, 0)), Finding::ready);
}

TEST(Health, WhileItStartsNothingButTimeCounts) {
  for (const Answer answer : {Answer::unknown, Answer::refused, Answer::silent, Answer::bad})
    EXPECT_EQ(found(State::starting, health(answer, 99, 99, 503)), Finding::unchanged);
  const auto late = judge({}, State::starting, health(Answer::refused, 99, 1800), false, seconds{1800});
  EXPECT_EQ(late.finding, Finding::replace);
  EXPECT_EQ(late.reason, "StartTimeout");
}

TEST(Health, WhoListensNoMoreIsTakenOutAtOnceAndReplacedSoon) {
  EXPECT_EQ(found(State::ready, health(Answer::refused, 1, 0)), Finding::unready);
  EXPECT_EQ(found(State::unready, health(Answer::refused, 9, 9)), Finding::unready);
  EXPECT_EQ(found(State::unready, health(Answer::refused, 10, 10)), Finding::replace);
}

TEST(Health, SilenceIsTriedThriceAndExcusedWhileItWorks) {
  EXPECT_EQ(found(State::ready, health(Answer::silent, 2, 4)), Finding::unchanged);
  EXPECT_EQ(found(State::ready, health(Answer::silent, 3, 6)), Finding::unready);
  EXPECT_EQ(found(State::ready, health(Answer::silent, 99, 600), true), Finding::unchanged);
  EXPECT_EQ(found(State::unready, health(Answer::silent, 30, 60)), Finding::replace);
}

TEST(Health, TheReasonSaysWhatWasSeen) {
  const auto verdict = judge({}, State::ready, health(Answer::bad, 3, 6, 503), false, seconds{100});
  EXPECT_EQ(verdict.reason, "NotAnswering");
  EXPECT_NE(verdict.detail.en.find("503"), std::string::npos);
}

}  // namespace
}  // namespace lathe::serving
