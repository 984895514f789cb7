#include "http/multipart.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>

namespace lathe::http {
namespace {

/// Hands a text out in pieces whose sizes the test chooses.
class TextBody final : public BodyReader {
 public:
  TextBody(std::string_view text, std::function<std::size_t()> sizes)
      : rest_(text), sizes_(std::move(sizes)) {}
  Result<std::size_t> read(std::span<char> into) override {
    const auto size = std::min({std::max<std::size_t>(1, sizes_()), into.size(), rest_.size()});
    std::copy_n(rest_.data(), size, into.data());
    rest_.remove_prefix(size);
    return size;
  }
  std::optional<std::uint64_t> length() const override { return std::nullopt; }

 private:
  std::string_view rest_;
  std::function<std::size_t()> sizes_;
};

struct Seen {
  std::string name, filename, content_type, content;
  bool operator==(const Seen&) const = default;
};

Result<std::vector<Seen>> read_form(BodyReader& body, std::string_view boundary, std::size_t copy_size = 0,
                                    MultipartReader::Limits limits = {}) {
  auto form =
      TRY(MultipartReader::open(body, "multipart/form-data; boundary=" + std::string(boundary), limits));
  std::vector<Seen> out;
  while (auto part = TRY(form.next_part())) {
    Seen seen{part->name, part->filename.value_or("(none)"), part->content_type, ""};
    if (copy_size > 0) {
      std::string into(copy_size, '\0');
      while (const auto got = TRY(form.read(into))) seen.content.append(into, 0, got);
    } else {
      for (auto piece = TRY(form.read()); !piece.empty(); piece = TRY(form.read())) seen.content += piece;
    }
    out.push_back(std::move(seen));
  }
  return out;
}

Result<std::vector<Seen>> read_form(std::string_view text, std::string_view boundary = "b") {
  TextBody body(text, [] { return std::size_t{1} << 20; });
  return read_form(body, boundary);
}

std::string write_form(const std::vector<Seen>& parts, const std::string& boundary) {
  std::string out;
  for (const auto& part : parts)
    out += "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + part.name + "\"; filename=\"" +
           part.filename + "\"\r\nContent-Type: " + part.content_type + "\r\n\r\n" + part.content + "\r\n";
  return out + "--" + boundary + "--\r\n";
}

TEST(Multipart, ReadsWhatBrowsersAndCurlSend) {
  const auto parts = read_form(
      "--b\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\ndata/train\r\n"
      "--b\r\ncontent-disposition:form-data; name=file; filename=\"\xe6\x95\xb0\xe6\x8d\xae.jsonl\"\r\n"
      "Content-Type: application/json\r\n\r\n{}\r\n\r\n"
      "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"; "
      "filename*=UTF-8''a%20%E6%95%B0\r\n\r\n"
      "\r\n--b\r\nContent-Disposition: form-data; name=\"a\\\"b\\\\c\\d\"; filename=\"\"\r\n\r\nx\r\n--b--");
  ASSERT_TRUE(parts.ok()) << parts.error().describe(Language::en);
  const std::vector<Seen> expected{{"path", "(none)", "", "data/train"},
                                   {"file", "\xe6\x95\xb0\xe6\x8d\xae.jsonl", "application/json", "{}\r\n"},
                                   {"file", "a \xe6\x95\xb0", "", ""},
                                   {"a\"b\\c\\d", "", "", "x"}};
  EXPECT_EQ(*parts, expected);
}

TEST(Multipart, IgnoresPreambleEpilogueAndPadding) {
  const auto parts = read_form(
      "preamble\r\n--b \t\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n--b--\r\nepilogue");
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->size(), 1u);
  EXPECT_EQ((*parts)[0].content, "v");
}

TEST(Multipart, AnEmptyFormHasNoParts) {
  const auto parts = read_form("--b--\r\n");
  ASSERT_TRUE(parts.ok());
  EXPECT_TRUE(parts->empty());
}

TEST(Multipart, RefusesWhatIsMalformed) {
  const std::string head = "Content-Disposition: form-data; name=\"n\"\r\n\r\n";
  const std::vector<std::pair<const char*, std::string>> wrong{
      {"nothing", ""},
      {"no boundary", "hello"},
      {"cut in the content", "--b\r\n" + head + "abc"},
      {"cut in the delimiter", "--b\r\n" + head + "abc\r\n--"},
      {"cut after the delimiter", "--b\r\n" + head + "abc\r\n--b"},
      {"cut in the head", "--b\r\nContent-Dispo"},
      {"a longer boundary", "--b\r\n" + head + "abc\r\n--bb--\r\n"},
      {"bare LF after the boundary", "--b\n" + head + "abc\r\n--b--\r\n"},
      {"bare LF in the head", "--b\r\nA: b\n" + head + "abc\r\n--b--\r\n"},
      {"no disposition", "--b\r\nContent-Type: a/b\r\n\r\nabc\r\n--b--\r\n"},
      {"no headers", "--b\r\n\r\nabc\r\n--b--\r\n"},
      {"two dispositions", "--b\r\nContent-Disposition: form-data; name=a\r\n" + head + "abc\r\n--b--\r\n"},
      {"attachment", "--b\r\nContent-Disposition: attachment; name=\"n\"\r\n\r\nabc\r\n--b--\r\n"},
      {"no name", "--b\r\nContent-Disposition: form-data; filename=\"n\"\r\n\r\nabc\r\n--b--\r\n"},
      {"an open quote", "--b\r\nContent-Disposition: form-data; name=\"n\r\n\r\nabc\r\n--b--\r\n"},
      {"a name that is not UTF-8",
       "--b\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nabc\r\n--b--\r\n"},
      {"filename* in another charset",
       "--b\r\nContent-Disposition: form-data; name=n; filename*=latin1''a\r\n\r\nabc\r\n--b--\r\n"},
      {"filename* with NUL",
       "--b\r\nContent-Disposition: form-data; name=n; filename*=UTF-8''a%00b\r\n\r\nabc\r\n--b--\r\n"},
      {"a folded header", "--b\r\nContent-Disposition: form-data;\r\n name=n\r\n\r\nabc\r\n--b--\r\n"},
      {"a space before the colon", "--b\r\nContent-Disposition : form-data; name=n\r\n\r\nabc\r\n--b--\r\n"},
      {"NUL in the head", "--b\r\nX: a" + std::string(1, '\0') + "\r\n" + head + "abc\r\n--b--\r\n"},
      {"an endless preamble", std::string(100'000, 'x') + "\r\n--b--\r\n"},
      {"an endless epilogue", "--b--\r\n" + std::string(100'000, 'x')},
      {"an endless head", "--b\r\nX: " + std::string(100'000, 'x') + "\r\n" + head + "abc\r\n--b--\r\n"},
  };
  for (const auto& [why, text] : wrong) {
    const auto parts = read_form(text);
    ASSERT_FALSE(parts.ok()) << why;
    EXPECT_EQ(parts.error().code, Code::invalid_argument) << why;
  }
}

TEST(Multipart, RefusesMediaTypesWithoutABoundary) {
  for (const auto* type : {"", "text/plain", "multipart/form-data",
                           "multipart/form-data; boundary=", "multipart/mixed; boundary=b",
                           "multipart/form-data; boundary=\"a b \"", "multipart/form-data; boundary=a{b"}) {
    TextBody body("", [] { return std::size_t{1}; });
    EXPECT_FALSE(MultipartReader::open(body, type).ok()) << type;
  }
  TextBody body("", [] { return std::size_t{1}; });
  EXPECT_FALSE(MultipartReader::open(body, "multipart/form-data; boundary=" + std::string(71, 'b')).ok());
  EXPECT_TRUE(MultipartReader::open(body, "Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"").ok());
}

TEST(Multipart, LimitsParts) {
  std::vector<Seen> parts(11, Seen{"n", "f", "a/b", "x"});
  const std::string text = write_form(parts, "b");
  TextBody body(text, [] { return std::size_t{100}; });
  const auto got = read_form(body, "b", 0, {.max_parts = 10});
  ASSERT_FALSE(got.ok());
  EXPECT_EQ(got.error().code, Code::too_large);
}

TEST(Multipart, LimitsFields) {
  TextBody body("--b\r\nContent-Disposition: form-data; name=n\r\n\r\n0123456789\r\n--b--\r\n",
                [] { return std::size_t{7}; });
  auto form = MultipartReader::open(body, "multipart/form-data; boundary=b");
  ASSERT_TRUE(form->next_part().ok());
  const auto text = form->read_all(9);
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code, Code::too_large);
}

TEST(Multipart, SkipsWhatIsNotRead) {
  const std::string text =
      write_form({{"a", "f", "x/y", std::string(700'000, 'z')}, {"b", "g", "x/y", "end"}}, "b");
  TextBody body(text, [] { return std::size_t{5000}; });
  auto form = MultipartReader::open(body, "multipart/form-data; boundary=b");
  EXPECT_EQ((*form->next_part())->name, "a");
  EXPECT_EQ((*form->next_part())->name, "b");
  EXPECT_EQ(*form->read_all(), "end");
  EXPECT_FALSE(form->next_part()->has_value());
  EXPECT_FALSE(form->next_part()->has_value());
}

TEST(Multipart, SurvivesEverySplitOfHostileContent) {
  const std::string boundary = "----Web-Kit--";
  const std::string delimiter = "\r\n--" + boundary;
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    std::vector<Seen> parts(1 + random() % 3);
    for (auto& part : parts) {
      part = {"n", "f", "a/b", ""};
      // Content made of beginnings of the delimiter: everything that nearly ends the part.
      for (auto pieces = random() % 40; pieces > 0; --pieces) {
        const auto cut = random() % delimiter.size();
        part.content += random() % 3 == 0 ? delimiter.substr(cut).substr(0, 1) : delimiter.substr(0, cut);
        if (random() % 4 == 0) part.content += "\r";
      }
      // The delimiter itself cannot be content.
      for (auto at = part.content.find(delimiter); at != std::string::npos; at = part.content.find(delimiter))
        part.content.erase(at, 1);
    }
    const std::string text = write_form(parts, boundary);
    TextBody body(text, [&]() -> std::size_t { return 1 + random() % (round % 2 == 0 ? 4 : 60); });
    const auto got = read_form(body, boundary, round % 3 == 0 ? 1 + random() % 20 : 0);
    ASSERT_TRUE(got.ok()) << got.error().describe(Language::en);
    ASSERT_EQ(*got, parts) << round;
  }
}

TEST(Multipart, FindsDelimitersLikeASimpleSearch) {
  std::mt19937 random(2);
  for (int round = 0; round < 20'000; ++round) {
    std::string delimiter = "\r\n--";
    for (auto size = random() % 30; size > 0; --size) delimiter += "ab-"[random() % 3];
    std::string text;
    for (auto size = random() % 120; size > 0; --size) text += "\r\n--ab"[random() % 6];
    if (random() % 2) text.insert(random() % (text.size() + 1), delimiter);
    ASSERT_EQ(find_delimiter(text, delimiter), text.find(delimiter)) << round;
  }
}

TEST(Multipart, IsLinearInHostileInput) {
  const std::string delimiter = "\r\n--" + std::string(69, '-') + "x";
  std::string hostile;
  while (hostile.size() < (8u << 20)) hostile += delimiter.substr(0, delimiter.size() - 1);
  const std::string returns(8u << 20, '\r');
  for (const std::string_view text : {std::string_view(hostile), std::string_view(returns)}) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(find_delimiter(text, delimiter), std::string_view::npos);
    // Milliseconds when linear, minutes when not.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  }
}

}  // namespace
}  // namespace lathe::http
