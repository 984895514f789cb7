#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

/// A user's command line with its `${…}` placeholders. Pure.
namespace lathe::jobs {

struct Placeholder {
  std::string name;
  std::string value;
};

/// A name that is an environment variable of the job too, so that the shell itself puts the value in. Other
/// names (`learning-rate`, `PATH`) are written into the line as a quoted word.
bool is_exported(std::string_view placeholder_name);

struct PreparedCommand {
  std::string line;               ///< for `/bin/sh -c`
  std::vector<std::string> used;  ///< names of the placeholders it mentions
  /// It passes its positional parameters on (`"$@"`), either because it says so or because they could be
  /// appended to its last command: `/bin/sh -c line sh --name value …` then reaches the script.
  bool takes_arguments = false;
};

/// Makes a shell line of `command` in which every `${name}` of a known placeholder is exactly one word (or
/// part of one), whatever its value: outside of quotes it becomes `"${name}"`, within double quotes it stays.
/// No value is ever part of the line unquoted, so none can become a second word or a second command.
///
/// `${…}` may also name a variable of `environment`, one that the command itself sets, or a shell parameter
/// (`${1}`, `${#}`), and may use the shell's operators (`${name:-default}`); these follow the shell's rules.
/// Anything else is invalid_argument naming `field`.
Result<PreparedCommand> prepare_command(std::string_view command, std::span<const Placeholder> known,
                                        std::span<const std::string> environment, std::string_view field);

/// `words` as one shell line with the same meaning as that argv; placeholders in it stay placeholders.
std::string line_of(std::span<const std::string> words);

/// `text` as exactly one word of the shell.
std::string single_quoted(std::string_view text);

}  // namespace lathe::jobs
