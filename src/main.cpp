#include <cstring>

#include "app/commands/commands.h"
#include "engines/supervise.h"

int main(int argc, char** argv) {
  // Before anything else: a supervisor is started for every run, and its start is part of the run's.
  if (argc >= 2 && std::strcmp(argv[1], "supervise") == 0) return lathe::engines::supervise_main(argc, argv);
  return lathe::app::run_command(argc, argv);
}
