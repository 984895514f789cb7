#pragma once

#include <functional>
#include <string>
#include <vector>

/// The life of a rank's first process, pid 1 of its namespace or its container: what it says to the
/// supervisor (channel.h), how it starts the command and how it looks after what came of it. Also linked into
/// the container's own static program, so nothing of the project but channel.h here. One thread.
namespace lathe::engines::first_process {

/// Where the channel to the supervisor and the run's lock lie in this process.
inline constexpr int kChannel = 3, kLock = 4;

void say(char what);
void say(char what, int number);
/// kFailed: why the view could not be built. Ends the process.
[[noreturn]] void fail(const std::string& zh, const std::string& en);

/// Tries argv[0] in every directory of PATH, as a shell does, and returns the errno that says most. Both
/// lists end with a null pointer.
int exec_in_path(const std::vector<char*>& argv, const std::vector<char*>& env);

/// SIGCHLD blocked, and a descriptor that can be read when one has come; -1 and errno on failure.
int watch_children();

/// Waits for kGo, starts the command and tells whether it runs; then reaps what ends, passes on the wish to
/// stop, and goes by `leave` when the command has gone: the kernel then ends whatever is left. `signals` is
/// watch_children()'s. `become_command` runs in the command's process, in a session of its own with no signal
/// blocked; it returns the errno with which the command could not be executed.
[[noreturn]] void live(int signals, const std::function<int()>& become_command, void (*leave)());

}  // namespace lathe::engines::first_process
