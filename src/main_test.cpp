#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>

#include "engines/supervise.h"

/// The tests' program can be the supervisor of the runs it starts, as `lathe` itself is.
int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "supervise") return lathe::engines::supervise_main(argc, argv);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
