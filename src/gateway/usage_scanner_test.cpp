#include "gateway/usage_scanner.h"

#include <gtest/gtest.h>

namespace lathe::gateway {
namespace {

struct Case {
  const char* text;
  int prompt, completion;  ///< -1: nothing is found
};

const Case kCases[] = {
    {R"({"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})", 3, 4},
    {R"({"usage" : { "completion_tokens" : 4 , "prompt_tokens" : 3 },"choices":[]})", 3, 4},
    {R"({"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens":4}})", 3,
     4},
    {R"({"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}})", 9, 0},
    {"data: {\"usage\":null}\n\ndata: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"
     "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
     1, 2},
    {R"({"content":"say \"usage\":{\"prompt_tokens\":5}"})", -1, -1},
    {R"({"content":"usage","usage":{"prompt_tokens":5,"completion_tokens":6}})", 5, 6},
    {R"({"usage":{"seconds":5}})", -1, -1},
    {R"({"usage":[1]})", -1, -1},
    {R"("usage""usage":{"prompt_tokens":8})", 8, 0},
    {R"({"usage":{"prompt_tokens":5)", -1, -1},
    {"", -1, -1},
};

TEST(UsageScanner, FindsTheLastUsageHoweverTheBodyIsCut) {
  for (const Case& one : kCases) {
    const std::string_view text = one.text;
    for (std::size_t piece = 1; piece <= text.size() + 1; ++piece) {
      UsageScanner scanner;
      for (std::size_t at = 0; at < text.size(); at += piece) scanner.feed(text.substr(at, piece));
      ASSERT_EQ(scanner.found().has_value(), one.prompt >= 0) << text << " in pieces of " << piece;
      if (!scanner.found()) continue;
      EXPECT_EQ(scanner.found()->prompt_tokens, static_cast<std::uint64_t>(one.prompt)) << text;
      EXPECT_EQ(scanner.found()->completion_tokens, static_cast<std::uint64_t>(one.completion)) << text;
    }
  }
}

}  // namespace
}  // namespace lathe::gateway
