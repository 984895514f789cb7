#include <gtest/gtest.h>

#include "engines/gpu/gpu_pool.h"
#include "engines/gpu/nvml.h"

namespace lathe::engines {
namespace {

constexpr std::int64_t kGb = 1LL << 30;

GpuPool two_devices() {
  return GpuPool({{.index = 0, .uuid = "GPU-a", .model = "A", .memory_bytes = 80 * kGb},
                  {.index = 1, .uuid = "GPU-b", .model = "A", .memory_bytes = 80 * kGb}});
}
GpuNeed whole(std::int64_t count) {
  return {.mode = GpuNeed::Mode::whole, .count = count};
}
GpuNeed share(std::int64_t gb, std::int64_t cores) {
  return {.mode = GpuNeed::Mode::share, .count = 1, .memory_bytes = gb * kGb, .cores_percent = cores};
}

TEST(GpuPool, GivesWholeDevicesOnce) {
  auto pool = two_devices();
  const auto grants = pool.place({whole(1), whole(1)});
  ASSERT_TRUE(grants);
  EXPECT_NE(grants->at(0).at(0).uuid, grants->at(1).at(0).uuid);
  EXPECT_FALSE(pool.place({whole(1)}));
  EXPECT_TRUE(pool.can_ever_place({whole(2)}));
  EXPECT_FALSE(pool.can_ever_place({whole(3)}));
}

TEST(GpuPool, PlacesAllOrNothing) {
  auto pool = two_devices();
  EXPECT_FALSE(pool.place({whole(1), whole(2)}));
  EXPECT_EQ(pool.free_devices(), 2);
}

TEST(GpuPool, PacksSharesAndKeepsWholeDevicesFree) {
  auto pool = two_devices();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(pool.place({share(20, 25)}));
  EXPECT_EQ(pool.free_devices(), 1);
  EXPECT_TRUE(pool.place({whole(1)}));
  EXPECT_FALSE(pool.place({share(1, 1)})) << "one is full, the other is given whole";
}

TEST(GpuPool, SharesNeverExceedMemoryOrCores) {
  auto pool = two_devices();
  ASSERT_TRUE(pool.place({share(10, 60), share(10, 60)}));
  EXPECT_FALSE(pool.place({share(10, 60)}));
  ASSERT_TRUE(pool.place({share(70, 10)}));
  EXPECT_FALSE(pool.can_ever_place({share(81, 10)}));
}

TEST(GpuPool, GivesSlicesByProfile) {
  GpuPool pool({{.index = 0,
                 .uuid = "GPU-a",
                 .memory_bytes = 80 * kGb,
                 .slices = {{"MIG-1", "1g.10gb"}, {"MIG-2", "1g.10gb"}, {"MIG-3", "3g.40gb"}}}});
  const GpuNeed small{.mode = GpuNeed::Mode::slice, .count = 2, .profile = "1g.10gb"};
  const auto grants = pool.place({small});
  ASSERT_TRUE(grants);
  EXPECT_EQ(grants->at(0).at(1).mig_uuid, "MIG-2");
  EXPECT_FALSE(pool.place({small}));
  EXPECT_FALSE(pool.place({whole(1)})) << "a device in MIG mode is not given whole";
}

TEST(GpuPool, AHeldGrantCountsAfterARestart) {
  auto pool = two_devices();
  const auto grants = pool.place({whole(1)});
  auto restarted = two_devices();
  restarted.hold(grants->at(0).at(0));
  EXPECT_EQ(restarted.free_devices(), 1);
}

TEST(Nvml, AMachineWithoutTheLibraryHasNoGpus) {
  const auto found = find_gpus("libthat-does-not-exist.so.1");
  EXPECT_TRUE(found.devices.empty());
  EXPECT_TRUE(found.trouble.en.empty());
}

TEST(Nvml, ALibraryThatIsNotNvmlIsTold) {
  EXPECT_FALSE(find_gpus("libm.so.6").trouble.en.empty());
}

}  // namespace
}  // namespace lathe::engines
