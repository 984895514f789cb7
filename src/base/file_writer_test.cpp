#include "base/file_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace lathe {
namespace {

class FileWriterTest : public ::testing::Test {
 protected:
  FileWriterTest() : fd_(::mkstemp(name_.data())) {}
  ~FileWriterTest() override { ::unlink(name_.c_str()); }

  std::string content() const {
    std::ifstream in(name_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  /// What the file occupies on the disk.
  std::uint64_t occupied() const {
    struct stat is {};
    EXPECT_EQ(::stat(name_.c_str(), &is), 0);
    return static_cast<std::uint64_t>(is.st_blocks) * 512;
  }

  std::string name_ = "/var/tmp/file-writer-XXXXXX";
  Fd fd_;
};

/// Bytes that tell where they belong.
std::string piece(std::uint64_t offset, std::size_t size) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((offset + i) * 2654435761U >> 13);
  return out;
}

TEST_F(FileWriterTest, WritesLargeFilesAndKeepsNoRoomForMore) {
  constexpr std::uint64_t kSize = (37U << 20) + 4321;
  std::string expected;
  {
    FileWriter file(std::move(fd_), 0);
    for (std::size_t size = 1; file.size() < kSize; size = size * 3 % 600'011 + 1) {
      const std::string next = piece(file.size(), std::min<std::size_t>(size, kSize - file.size()));
      ASSERT_TRUE(file.write(next).ok());
      expected += next;
    }
    EXPECT_EQ(file.size(), kSize);
    ASSERT_TRUE(file.sync().ok());
    EXPECT_LT(occupied(), kSize + (64U << 10));
    // What comes after a sync is kept, and its room given back, too.
    ASSERT_TRUE(file.write("end").ok());
    EXPECT_GT(occupied(), kSize + (8U << 20));
  }
  EXPECT_LT(occupied(), kSize + (64U << 10));
  EXPECT_TRUE(content() == expected + "end");
}

TEST_F(FileWriterTest, GoesOnWithAFileAndIsMovedWithItsRoom) {
  const std::string before = piece(0, 3U << 20);
  {
    FileWriter file(std::move(fd_), 0);
    ASSERT_TRUE(file.write(before).ok());
  }
  Fd again(::open(name_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  FileWriter first(std::move(again), before.size());
  ASSERT_TRUE(first.write("more").ok());
  FileWriter second;
  second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): it has no file any more
  ASSERT_TRUE(second.write(" yet").ok());
  second.close();
  EXPECT_FALSE(second);
  EXPECT_LT(occupied(), before.size() + (64U << 10));
  EXPECT_TRUE(content() == before + "more yet");
}

TEST_F(FileWriterTest, IsTakenBackAndWrittenAnew) {
  const std::string before = piece(0, 2U << 20);
  FileWriter file(std::move(fd_), 0);
  ASSERT_TRUE(file.write(before).ok());
  ASSERT_TRUE(file.write("what is wrong").ok());
  ASSERT_TRUE(file.cut(before.size()).ok());
  EXPECT_EQ(file.size(), before.size());
  ASSERT_TRUE(file.write("what is right").ok());
  file.close();
  EXPECT_TRUE(content() == before + "what is right");
}

TEST_F(FileWriterTest, SaysWhereItCannotWrite) {
  FileWriter file(Fd(::open("/dev/full", O_WRONLY | O_CLOEXEC)), 0);
  const auto written = file.write(std::string(4U << 20, 'x'));
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(file.size(), 0U);
}

}  // namespace
}  // namespace lathe
