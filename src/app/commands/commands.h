#pragma once

#include <functional>

namespace CLI {
class App;
}

/// The program's commands: each adds itself to the command line and, when it is the one that was given, sets
/// what is to be done. What `main` returns is what it returns.
namespace lathe::app {

using Chosen = std::function<int()>;

void add_serve(CLI::App& root, Chosen& chosen);
void add_version(CLI::App& root, Chosen& chosen);

/// Reads the command line and does what it says.
int run_command(int argc, char** argv);

}  // namespace lathe::app
