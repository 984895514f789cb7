#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include "db/database.h"

namespace lathe::db {

/// A folder of a test's own, removed with all it holds.
class TestFolder {
 public:
  explicit TestFolder(const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::string name = (parent / "lathe-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("cannot make the folder " + name);
    path_ = name;
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Where waiting for the disk costs nothing, if there is such a place: a test of a feature opens dozens of
/// databases.
inline std::filesystem::path memory_folder() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
}

/// For tests: an SQLite database in a temporary folder, with every migration applied; removed with the
/// pointer.
inline std::unique_ptr<Database> open_test_database() {
  class TestDatabase final : public Database {
   public:
    TestDatabase() {
      auto opened = open_sqlite({.path = folder_.file("test.db")});
      if (!opened.ok()) throw std::runtime_error(opened.error().message.en);
      database_ = std::move(opened).value();
    }

   protected:
    Result<void> run_write(const Body& body) override { return database_->write(body); }
    Result<void> run_read(const Body& body) override { return database_->read(body); }

   private:
    const TestFolder folder_{memory_folder()};
    std::unique_ptr<Database> database_;
  };
  return std::make_unique<TestDatabase>();
}

}  // namespace lathe::db
