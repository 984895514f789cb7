#include "jobs/plan/command.h"

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <random>

#include "jobs/plan/environment.h"

extern char** environ;

namespace lathe::jobs {
namespace {

/// Runs `/bin/sh -c line sh args…` with `env` in an empty directory and gives its standard output.
std::string shell(const std::string& line, const std::vector<std::pair<std::string, std::string>>& env,
                  const std::vector<std::string>& args = {}) {
  int fds[2];
  if (pipe(fds) != 0) return "(no pipe)";
  std::vector<std::string> words{"/bin/sh", "-c", line, "sh"};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<std::string> settings{"PATH=/usr/bin:/bin"};
  for (const auto& [name, value] : env) settings.push_back(name + "=" + value);
  std::vector<char*> argv, envp;
  for (auto& word : words) argv.push_back(word.data());
  for (auto& setting : settings) envp.push_back(setting.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
  posix_spawn_file_actions_addclose(&actions, fds[0]);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1, 0);
  posix_spawn_file_actions_addchdir_np(&actions, "/proc/self/fdinfo");  // nothing a glob could match usefully
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, "/bin/sh", &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  std::string out;
  std::array<char, 4096> buffer{};
  for (ssize_t n; (n = read(fds[0], buffer.data(), buffer.size())) > 0;) out.append(buffer.data(), n);
  close(fds[0]);
  if (failed == 0) waitpid(pid, nullptr, 0);
  return out;
}

/// What the job's shell sees: the exported placeholders as variables.
std::string run(const std::string& command, const std::vector<Placeholder>& known) {
  const auto prepared = prepare_command(command, known, {}, "command");
  if (!prepared.ok()) return "(refused: " + prepared.error().describe(Language::en) + ")";
  std::vector<std::pair<std::string, std::string>> env;
  for (const auto& each : known)
    if (is_exported(each.name)) env.emplace_back(each.name, each.value);
  return shell(prepared->line, env);
}

const std::vector<std::string> kHostile{
    "a b",
    "; touch /tmp/x",
    "$(id)",
    "`id`",
    "'",
    "\"",
    "\\",
    "*",
    "a\nb",
    "&& id",
    "| id",
    "> /dev/null",
    "${PATH}",
    "$HOME",
    "-rf /",
    "'; id; '",
    "\"; id; \"",
    "#",
    "~",
    "{a,b}",
    "\t",
    "!",
    "'\"'\"'$(id)'\"'\"'",
    "\\'",
    "日本 語",
    "%s%n",
    "a\\\nb",
    ")",
};

class HostileValue : public testing::TestWithParam<std::string> {};

// printf repeats its format for every argument: one value, one pair of brackets.
TEST_P(HostileValue, IsOneWordWhereverItStands) {
  const std::string value = GetParam();
  for (const char* name : {"lr", "learning-rate", "PATH"}) {
    const std::string mark = std::string("${") + name + "}";
    const std::vector<Placeholder> known{{name, value}, {"other", "x y"}};
    EXPECT_EQ(run("printf '[%s]' " + mark + " end #", known), "[" + value + "][end]");
    EXPECT_EQ(run("printf '[%s]' \"" + mark + "\" end #", known), "[" + value + "][end]");
    EXPECT_EQ(run("printf '[%s]' --opt=" + mark + "/x \"a" + mark + "b\" #", known),
              "[--opt=" + value + "/x][a" + value + "b]");
    EXPECT_EQ(run("printf '[%s]' \"$(printf '[%s]' " + mark + " ${other}; printf .)\" #", known),
              "[[" + value + "][x y].]");
    EXPECT_EQ(run("(printf '[%s]' " + mark + "); printf '[%s]' " + mark + " #", known),
              "[" + value + "][" + value + "]");
  }
  const std::vector<Placeholder> known{{"lr", value}};
  EXPECT_EQ(run("sh -c 'printf \"[%s]\" \"${lr}\"' #", known), "[" + value + "]");
  EXPECT_EQ(run("printf '[%s]' ${lr:-none} #", known), "[" + value + "]");
  EXPECT_EQ(run("cat <<END\n${lr}\nEND\n", known), value + "\n");
}

INSTANTIATE_TEST_SUITE_P(Command, HostileValue, testing::ValuesIn(kHostile));

// A property over random values of the characters that mean something to a shell.
TEST(Command, NoValueEverBecomesASecondWord) {
  std::mt19937 random(7);
  const std::string alphabet = "ab $`'\"\\;&|<>(){}[]*?~#!\n\t=-";
  for (int round = 0; round < 150; ++round) {
    std::string value, other;
    for (auto* text : {&value, &other})
      for (int i = 1 + static_cast<int>(random() % 12); i > 0; --i)
        *text += alphabet[random() % alphabet.size()];
    const std::vector<Placeholder> known{{"p", value}, {"q-1", other}};
    EXPECT_EQ(run("printf '[%s]' ${p} \"${q-1}\" x${q-1}y\"${p}\" #", known),
              "[" + value + "][" + other + "][x" + other + "y" + value + "]")
        << value << " / " << other;
  }
}

TEST(Command, UnknownPlaceholdersAreRefusedByName) {
  const std::vector<Placeholder> known{{"model_dir", "/workspace/model"}};
  for (const char* command : {"run ${nope}", "run \"${nope}\"", "run $(echo ${nope})", "run ${nope%x}",
                              "run ${}", "run ${no pe}", "run ${", "cat <<E\n${nope}\nE\n"}) {
    const auto got = prepare_command(command, known, {}, "command");
    ASSERT_FALSE(got.ok()) << command;
    EXPECT_EQ(got.error().violations.at(0).field, "command");
  }
  const std::vector<std::string> environment{"MINE"};
  for (const char* command : {"run ${model_dir}", "run ${MINE}", "run ${RANK} ${HOME}",
                              "for i in 1 2; do echo ${i}; done", "x=3; echo ${x}", "read a b; echo ${b}",
                              "echo ${undefined:-fallback}", "echo '${not looked at}'", "echo a # ${comment}",
                              "echo \\${escaped}", "echo ${1} ${#} ${model_dir#/}", "cat <<'E'\n${raw}\nE\n"})
    EXPECT_TRUE(prepare_command(command, known, environment, "command").ok()) << command;
}

TEST(Command, ArgumentsReachTheLastCommandThatCanTakeThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"python3 train.py", "python3 train.py \"$@\""},
      {"cd code && python3 train.py  \n", "cd code && python3 train.py \"$@\""},
      {"echo done-training", "echo done-training \"$@\""},
      {"python3 train.py > log 2>&1", "python3 train.py > log 2>&1 \"$@\""},
      {"python3 train.py \"$@\" > log", "python3 train.py \"$@\" > log"},
      {"for i in 1 2; do echo $i; done", "for i in 1 2; do echo $i; done"},
      {"python3 train.py &", "python3 train.py &"},
      {"(cd x; run)", "(cd x; run)"},
      {"run # why", "run # why"},
      {"echo 'unfinished", "echo 'unfinished"},
  };
  for (const auto& [command, expected] : cases) {
    const auto got = prepare_command(command, {}, {}, "command");
    ASSERT_TRUE(got.ok());
    EXPECT_EQ(got->line, expected);
    EXPECT_EQ(got->takes_arguments, std::string(expected).find("$@") != std::string::npos);
  }
  const auto line = prepare_command("printf '[%s]'", {}, {}, "command")->line;
  EXPECT_EQ(shell(line, {}, {"--lr", "a b; id"}), "[--lr][a b; id]");
}

TEST(Command, ListedWordsStayWords) {
  const std::vector<std::string> words{"printf", "[%s]", "a b", "$HOME", "\"q\"", "`id`", "${lr}x"};
  EXPECT_EQ(run(line_of(words) + " #", {{"lr", "1 2"}}), "[a b][$HOME][\"q\"][`id`][1 2x]");
}

TEST(Command, SaysWhatItUses) {
  const std::vector<Placeholder> known{{"a", "1"}, {"b", "2"}, {"c", "3"}};
  const auto got = prepare_command("run ${b} \"${a}\" ${b}", known, {}, "command");
  EXPECT_EQ(got->used, (std::vector<std::string>{"b", "a"}));
}

TEST(Environment, NamesThatCannotBePlaceholderVariables) {
  EXPECT_TRUE(is_exported("output_dir"));
  for (const char* name : {"PATH", "LD_PRELOAD", "LATHE_X", "RANK", "a-b", "a.b", "1a"})
    EXPECT_FALSE(is_exported(name)) << name;
}

}  // namespace
}  // namespace lathe::jobs
