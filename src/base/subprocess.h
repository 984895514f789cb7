#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace lathe {

/// A program to run to its end. No shell is involved.
struct Command {
  std::vector<std::string> argv;  ///< argv[0] is looked up in the server's PATH unless it has a slash
  /// "NAME=value" each. Unset: PATH, HOME, LANG and TZ of the server and nothing else, which may be secret.
  std::optional<std::vector<std::string>> env = {};
  std::string work_dir = {};          ///< "": the server's
  std::string input = {};             ///< its standard input
  Duration timeout{10'000};           ///< then it and its process group are killed
  std::size_t max_output = 16 << 20;  ///< bytes kept of each stream; what is beyond is read and dropped
};

struct CommandOutcome {
  int exit_code = 0;  ///< 128 + signal where a signal ended it
  std::string output;
  std::string errors;
  bool truncated = false;
  bool success() const { return exit_code == 0; }
};

/// Runs it and waits, reading both streams. Safe from any thread; the caller's own children are left alone.
/// Errors: not_found (no such program), deadline_exceeded (the message quotes its last words), internal. An
/// exit code is no error.
Result<CommandOutcome> run_command(const Command& command);

}  // namespace lathe
