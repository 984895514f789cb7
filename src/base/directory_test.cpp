#include "base/directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lathe {
namespace {

namespace fs = std::filesystem;

Path at(std::string_view text) {
  return Path::parse(text, "path").value();
}

class DirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "lathe-directory-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    host_ = pattern;
    fs::create_directories(host_ / "outside");
    root_ = Directory::create((host_ / "root").string()).value();
    std::ofstream(host_ / "outside/secret") << "secret";
  }
  void TearDown() override {
    // Not fs::remove_all: a tree deeper than PATH_MAX is one of the cases.
    EXPECT_TRUE(Directory::open(host_.string()).value().remove_tree(Path()).ok());
    fs::remove(host_);
  }
  void put(std::string_view path, std::string_view bytes = "x") {
    ASSERT_TRUE(root_.write_file(at(path), bytes).ok());
  }
  fs::path host_;
  Directory root_;
};

TEST(PathTest, ManySpellingsAreOnePlace) {
  for (const char* text : {"a/b", "/a/b", "a//b/", "//a/b//"}) EXPECT_EQ(at(text).text(), "a/b") << text;
  EXPECT_TRUE(at("").is_root());
  EXPECT_TRUE(at("///").is_root());
  EXPECT_EQ(at("a/b").name(), "b");
  EXPECT_EQ(at("a/b").parent().text(), "a");
  EXPECT_EQ((at("a") / at("b/c")).text(), "a/b/c");
  EXPECT_TRUE(at("a").contains(at("a/b")));
  EXPECT_FALSE(at("a").contains(at("ab")));
}

TEST(PathTest, RefusesHostileTextAndNamesTheField) {
  const std::string long_name(256, 'a');
  std::string long_path;
  for (int i = 0; i < 30; ++i) long_path += std::string(150, 'b') + "/";
  const std::string cases[] = {"..",
                               "a/../b",
                               "../etc/passwd",
                               "a/..",
                               ".",
                               "./a",
                               "a/./b",
                               "a\nb",
                               "a\x7f",
                               std::string("a\0b", 3),
                               "\xff",
                               "\xc0\xae\xc0\xae/x",
                               "a\xc2\x85",
                               "\xe2\x80\xaetxt.exe",
                               long_name,
                               long_path};
  for (const std::string& text : cases) {
    auto path = Path::parse(text, "currentPath");
    ASSERT_FALSE(path.ok()) << text;
    EXPECT_EQ(path.error().code, Code::invalid_argument);
    EXPECT_EQ(path.error().violations.at(0).field, "currentPath");
  }
  for (const char* text : {"%2e%2e/x", "...", "a b", "..a", "模型/数据", "a\\b"})
    EXPECT_TRUE(Path::parse(text, "path").ok()) << text;
}

TEST(PathTest, BothSpellingsOfAnAccentAreOneName) {
  const Path composed = at("caf\xc3\xa9");
  const Path decomposed = at("cafe\xcc\x81");
  EXPECT_EQ(composed, decomposed);
  EXPECT_EQ(composed.spelling(), "");
  EXPECT_EQ(decomposed.spelling(), "cafe\xcc\x81");
}

TEST_F(DirectoryTest, LinksAreFollowedInsideTheRootOnly) {
  put("data/a.txt", "inside");
  ASSERT_EQ(symlink("a.txt", (host_ / "root/data/near").c_str()), 0);
  ASSERT_EQ(symlink("../outside/secret", (host_ / "root/climb").c_str()), 0);
  ASSERT_EQ(symlink((host_ / "outside").c_str(), (host_ / "root/absolute").c_str()), 0);
  ASSERT_EQ(symlink("loop", (host_ / "root/loop").c_str()), 0);
  EXPECT_EQ(root_.read_file(at("data/near")).value(), "inside");
  EXPECT_FALSE(root_.open_file(at("data/near"), Links::refuse).ok());
  for (const char* path : {"climb", "absolute/secret", "loop"}) {
    auto file = root_.open_file(at(path));
    ASSERT_FALSE(file.ok()) << path;
    EXPECT_EQ(file.error().code, Code::invalid_argument) << path;
  }
  EXPECT_FALSE(root_.write_file(at("absolute/new"), "x").ok());
  EXPECT_FALSE(root_.make_directories(at("absolute/folder")).ok());
  EXPECT_FALSE(root_.remove_file(at("absolute/secret")).ok());
  EXPECT_TRUE(fs::exists(host_ / "outside/secret"));
  // A link is renamed and removed itself, never what it leads to.
  EXPECT_TRUE(root_.remove_tree(at("absolute")).ok());
  EXPECT_TRUE(root_.remove_tree(at("climb")).ok());
  EXPECT_TRUE(fs::exists(host_ / "outside/secret"));
}

TEST_F(DirectoryTest, PipesAreRefusedWithoutWaiting) {
  ASSERT_EQ(mkfifo((host_ / "root/pipe").c_str(), 0600), 0);
  EXPECT_FALSE(root_.open_file(at("pipe")).ok());
  EXPECT_EQ(root_.stat(at("pipe"))->type, FileType::other);
}

TEST_F(DirectoryTest, SubRootsDoNotReachAboveThemselves) {
  put("u1/secret");
  ASSERT_TRUE(root_.make_directories(at("u2")).ok());
  ASSERT_EQ(symlink("../u1", (host_ / "root/u2/peer").c_str()), 0);
  EXPECT_TRUE(root_.open_file(at("u2/peer/secret")).ok());
  const Directory own = root_.at(at("u2")).value();
  EXPECT_FALSE(own.open_file(at("peer/secret")).ok());
  EXPECT_EQ(own.host_path(), (host_ / "root/u2").string());
}

TEST_F(DirectoryTest, FilesWithADecomposedNameStayReachable) {
  std::ofstream(host_ / "root/cafe\xcc\x81") << "x";
  EXPECT_TRUE(root_.open_file(at("cafe\xcc\x81")).ok());
  EXPECT_TRUE(root_.rename(at("cafe\xcc\x81"), at("plain"), Directory::Replace::never).ok());
  EXPECT_TRUE(root_.exists(at("plain")));
}

TEST_F(DirectoryTest, ListsInPagesInByteOrder) {
  for (const char* name : {"b", "a", "d", "c", "e"}) put(name);
  auto names = [&](std::string_view after, std::size_t limit) {
    std::string out;
    const auto page = root_.list(Path(), after, limit);
    for (const auto& entry : *page) out += entry.name;
    return out;
  };
  EXPECT_EQ(names("", 2), "ab");
  EXPECT_EQ(names("b", 2), "cd");
  EXPECT_EQ(names("d", 2), "e");
  EXPECT_EQ(names("", 100), "abcde");
  EXPECT_EQ(root_.list(at("a"), "", 10).error().code, Code::failed_precondition);
  EXPECT_EQ(root_.list(at("none"), "", 10).error().code, Code::not_found);
}

TEST_F(DirectoryTest, RenameReplacesFilesAtomicallyAndNeverFolders) {
  put("new", "new");
  put("old", "old");
  put("folder/x");
  EXPECT_EQ(root_.rename(at("new"), at("old"), Directory::Replace::never).error().code, Code::already_exists);
  EXPECT_TRUE(root_.rename(at("new"), at("old"), Directory::Replace::files).ok());
  EXPECT_EQ(root_.read_file(at("old")).value(), "new");
  EXPECT_EQ(root_.rename(at("old"), at("folder"), Directory::Replace::files).error().code,
            Code::failed_precondition);
  EXPECT_EQ(root_.rename(at("folder"), at("old"), Directory::Replace::files).error().code,
            Code::already_exists);
  EXPECT_EQ(root_.rename(at("folder"), at("folder/in"), Directory::Replace::never).error().code,
            Code::invalid_argument);
  EXPECT_EQ(root_.rename(at("none"), at("x"), Directory::Replace::never).error().code, Code::not_found);
}

TEST_F(DirectoryTest, WriteFileLeavesNothingBesideTheFile) {
  put("a", "one");
  put("a", "two");
  EXPECT_EQ(root_.read_file(at("a")).value(), "two");
  EXPECT_EQ(root_.list(Path(), "", 10)->size(), 1U);
  put("folder/x");
  EXPECT_FALSE(root_.write_file(at("folder"), "x").ok());
  EXPECT_EQ(root_.list(Path(), "", 10)->size(), 2U);
  EXPECT_EQ(root_.read_file(at("a"), 2).error().code, Code::too_large);
}

TEST_F(DirectoryTest, MeasuresAndRemovesTreesDeeperThanPathMax) {
  fs::path deep = host_ / "root/deep";
  fs::create_directory(deep);
  int folder = open(deep.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  constexpr int kDepth = 300;
  const std::string name(100, 'd');
  for (int i = 0; i < kDepth; ++i) {
    close(openat(folder, "before", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_EQ(mkdirat(folder, name.c_str(), 0700), 0);
    const int next = openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(openat(folder, "zafter", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    close(folder);
    folder = next;
  }
  close(folder);
  const TreeSize size = root_.measure(at("deep")).value();
  EXPECT_EQ(size.files, 2U * kDepth);
  EXPECT_EQ(size.inodes, 3U * kDepth + 1);
  EXPECT_TRUE(root_.remove_tree(at("deep")).ok());
  EXPECT_FALSE(root_.exists(at("deep")));
  EXPECT_TRUE(root_.remove_tree(at("deep")).ok());
}

TEST_F(DirectoryTest, MeasuresWideFolders) {
  ASSERT_TRUE(root_.make_directories(at("wide")).ok());
  for (int i = 0; i < 1500; ++i)
    std::ofstream(host_ / "root/wide" / ("file-with-a-long-name-" + std::to_string(i))) << "12";
  const TreeSize size = root_.measure(at("wide")).value();
  EXPECT_EQ(size.files, 1500U);
  EXPECT_EQ(size.bytes, 3000U);
  EXPECT_TRUE(root_.remove_tree(at("wide")).ok());
}

TEST_F(DirectoryTest, CopiesTreesFollowingLinksToFilesInside) {
  put("from/sub/a", "aa");
  put("from/b", "b");
  put("blob", "blob");
  ASSERT_EQ(symlink("../blob", (host_ / "root/from/link").c_str()), 0);
  ASSERT_TRUE(root_.make_directories(at("to")).ok());
  TreeSize seen;
  auto copied = root_.copy_tree(at("from"), root_, at("to/copy"), {.progress = [&](const TreeSize& done) {
                                  seen = done;
                                  return true;
                                }});
  ASSERT_TRUE(copied.ok()) << copied.error().describe(Language::en);
  EXPECT_EQ(copied->bytes, 7U);
  EXPECT_EQ(copied->files, 3U);
  EXPECT_EQ(seen.bytes, 7U);
  EXPECT_EQ(root_.read_file(at("to/copy/link"))->size(), 4U);
  EXPECT_EQ(root_.stat(at("to/copy/link"), Links::refuse)->type, FileType::file);
  EXPECT_EQ(root_.copy_tree(at("from"), root_, at("to/copy"), {}).error().code, Code::already_exists);
  EXPECT_FALSE(root_.copy_tree(at("from"), root_, at("to/strict"), {.links = Links::refuse}).ok());
  auto cancelled =
      root_.copy_tree(at("from"), root_, at("to/half"), {.progress = [](const TreeSize&) { return false; }});
  EXPECT_EQ(cancelled.error().code, Code::cancelled);
  ASSERT_EQ(symlink("../../outside/secret", (host_ / "root/from/out").c_str()), 0);
  EXPECT_FALSE(root_.copy_tree(at("from"), root_, at("to/out"), {}).ok());
}

}  // namespace
}  // namespace lathe
