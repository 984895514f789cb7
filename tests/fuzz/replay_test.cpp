// The fuzzers' first inputs, and what is a little off them, in every run of the tests: a fuzzer that no
// longer builds, or that what it looks at no longer stands, is seen at once. ./dev fuzz goes on from there.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#define FUZZER(name) extern "C" int fuzz_##name(const std::uint8_t* data, std::size_t size);
LATHE_FUZZERS
#undef FUZZER

namespace lathe {
namespace {

using Fuzzer = int (*)(const std::uint8_t*, std::size_t);

struct Named {
  const char* name;
  Fuzzer run;
};

#define FUZZER(name) {#name, fuzz_##name},
constexpr Named kFuzzers[] = {LATHE_FUZZERS};
#undef FUZZER

std::vector<std::string> inputs_of(const Named& fuzzer) {
  std::vector<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(LATHE_FUZZ_INPUTS) / fuzzer.name)) {
    std::ifstream file(entry.path(), std::ios::binary);
    out.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return out;
}

void run(const Named& fuzzer, const std::string& input) {
  // Of its own size, so that a read behind its end is seen.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  EXPECT_EQ(fuzzer.run(bytes.data(), bytes.size()), 0);
}

class FuzzReplay : public testing::TestWithParam<Named> {};

TEST_P(FuzzReplay, InputsAndTheirNeighboursAreWithstood) {
  constexpr int kNeighbours = 150;
  const auto inputs = inputs_of(GetParam());
  ASSERT_FALSE(inputs.empty());
  std::mt19937 random(1);
  for (const std::string& input : inputs) {
    run(GetParam(), input);
    for (int i = 0; i < kNeighbours && !input.empty(); ++i) {
      std::string other = input.substr(0, 1 + random() % input.size());
      if (i % 3 != 0) other = input;
      for (std::size_t changes = i % 3; changes > 0; --changes)
        other[random() % other.size()] = static_cast<char>(random());
      run(GetParam(), other);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FuzzReplay, testing::ValuesIn(kFuzzers),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace lathe
