#include "app/commands/commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>

namespace lathe::app {

void add_version(CLI::App& root, Chosen& chosen) {
  root.add_subcommand("version", "Print the version")->callback([&chosen] {
    chosen = [] {
      std::printf("lathe %s\n", LATHE_VERSION);
      return 0;
    };
  });
}

int run_command(int argc, char** argv) {
  CLI::App root{"Lathe: tune, evaluate and serve models", "lathe"};
  root.set_version_flag("--version", "lathe " LATHE_VERSION);
  root.require_subcommand(1);
  Chosen chosen;
  add_serve(root, chosen);
  add_version(root, chosen);
  // Commands go here, one line each.
  try {
    root.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return root.exit(error);
  }
  return chosen ? chosen() : 0;
}

}  // namespace lathe::app
