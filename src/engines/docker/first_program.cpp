#include "engines/docker/first_program.h"

#include <cstddef>

// The assembler takes the file in as it is. LATHE_FIRST_PROGRAM is its path, from CMake.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "lathe_first_program_begin:\n"
    ".incbin \"" LATHE_FIRST_PROGRAM
    "\"\n"
    "lathe_first_program_end:\n"
    ".byte 0\n"
    ".popsection\n");

extern "C" {
extern const char lathe_first_program_begin[];
extern const char lathe_first_program_end[];
}

namespace lathe::engines {

std::string_view first_program() {
  return {lathe_first_program_begin,
          static_cast<std::size_t>(lathe_first_program_end - lathe_first_program_begin)};
}

}  // namespace lathe::engines
