#include "base/subprocess.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace lathe {
namespace {

using namespace std::chrono_literals;

Command shell(std::string script) {
  return {.argv = {"sh", "-c", std::move(script)}};
}

TEST(Subprocess, TellsOutputAndExitCode) {
  const auto outcome = run_command(shell("echo out; echo err >&2; exit 3"));
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->exit_code, 3);
  EXPECT_EQ(outcome->output, "out\n");
  EXPECT_EQ(outcome->errors, "err\n");
  EXPECT_EQ(run_command(shell("kill -9 $$"))->exit_code, 137);
}

TEST(Subprocess, PassesInputAndDirectory) {
  auto command = shell("pwd; cat");
  command.work_dir = "/usr";
  command.input = std::string(1 << 20, 'x');
  const auto outcome = run_command(command);
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->output, "/usr\n" + command.input);
}

TEST(Subprocess, TakesArgumentsAsTheyAre) {
  const auto outcome = run_command({.argv = {"printf", "%s|", "$(id)", "a b", "", "'\";"}});
  EXPECT_EQ(outcome->output, "$(id)|a b||'\";|");
}

TEST(Subprocess, KeepsSecretsOfTheEnvironment) {
  ::setenv("LATHE_TEST_SECRET", "secret", 1);
  EXPECT_THAT(run_command(shell("env"))->output, testing::Not(testing::HasSubstr("secret")));
  auto command = shell("env");
  command.env = {{"ONLY=this"}};
  EXPECT_THAT(run_command(command)->output, testing::HasSubstr("ONLY=this\n"));
}

TEST(Subprocess, NamesAMissingProgram) {
  EXPECT_EQ(run_command({.argv = {"no-such-program"}}).error().code, Code::not_found);
}

TEST(Subprocess, KillsTheGroupAtTheTimeout) {
  auto command = shell("echo working; sleep 1000 & sleep 1000");
  command.timeout = 100ms;
  const auto outcome = run_command(command);
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::deadline_exceeded);
  EXPECT_THAT(outcome.error().message.en, testing::HasSubstr("working"));
}

TEST(Subprocess, DoesNotWaitForWhatItLeavesBehind) {
  auto command = shell("sleep 5 & echo done");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run_command(command)->output, "done\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 4s);
}

TEST(Subprocess, BoundsWhatItKeeps) {
  auto command = shell("head -c 1000000 /dev/zero");
  command.max_output = 1000;
  const auto outcome = run_command(command);
  EXPECT_EQ(outcome->output.size(), 1000U);
  EXPECT_TRUE(outcome->truncated);
  EXPECT_EQ(outcome->exit_code, 0);
}

}  // namespace
}  // namespace lathe
