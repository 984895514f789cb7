#include "images/uploads.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <utility>

#include "files/testing.h"

namespace lathe::images {
namespace {

using files::testing::Platform;

/// Another database, in which something may happen right after a read.
class WatchedDatabase final : public db::Database {
 public:
  explicit WatchedDatabase(db::Database& around) : around_(around) {}
  std::function<void()> after_read;  ///< once

 protected:
  Result<void> run_write(const Body& body) override { return around_.write(body); }
  Result<void> run_read(const Body& body) override {
    auto done = around_.read(body);
    if (const auto then = std::exchange(after_read, nullptr)) then();
    return done;
  }

 private:
  db::Database& around_;
};

TEST(ImageUploads, OneThatIsTakenUpAgainDoesNotExpire) {
  Platform platform;
  WatchedDatabase db(platform.db());
  ManualClock clock(platform.clock().now());
  const auto store = BlobStore::open(platform.host("images")).value();
  const auto uploads = Uploads::open(db, platform.files(), *store, platform.ids(), clock).value();
  const std::string left = uploads->begin("2", "zjm/left")->id();
  const std::string taken_up = uploads->begin("2", "zjm/taken-up")->id();
  clock.advance(std::chrono::hours{25});

  // The client comes back between the look for what is too old and its removal.
  db.after_read = [&] { EXPECT_TRUE(uploads->find(taken_up, "2", "zjm/taken-up")->append("a").ok()); };
  ASSERT_TRUE(uploads->drop_expired(clock.now() - std::chrono::hours{24}).ok());

  EXPECT_EQ(uploads->find(left, "2", "zjm/left").error().code, Code::not_found);
  const auto found = uploads->find(taken_up, "2", "zjm/taken-up");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->size(), 1U);
}

TEST(ImageUploads, OneThatEndsWhileItIsLookedForIsNotFound) {
  Platform platform;
  WatchedDatabase db(platform.db());
  const auto store = BlobStore::open(platform.host("images")).value();
  const auto uploads = Uploads::open(db, platform.files(), *store, platform.ids(), platform.clock()).value();
  const std::string id = uploads->begin("2", "zjm/gone")->id();
  db.after_read = [&] { EXPECT_TRUE(uploads->find(id, "2", "zjm/gone")->cancel().ok()); };
  EXPECT_EQ(uploads->find(id, "2", "zjm/gone").error().code, Code::not_found);
  EXPECT_EQ(uploads->find(id, "2", "zjm/gone").error().code, Code::not_found);
  EXPECT_FALSE(std::filesystem::exists(platform.host("images/.uploads/" + id)));
}

}  // namespace
}  // namespace lathe::images
