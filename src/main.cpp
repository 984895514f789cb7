#include "app/commands/commands.h"

int main(int argc, char** argv) {
  return lathe::app::run_command(argc, argv);
}
