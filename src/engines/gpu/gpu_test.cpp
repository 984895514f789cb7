#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "engines/gpu/device_nodes.h"
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

TEST(GpuPool, AShareIsOneWhateverItsFigures) {
  auto pool = two_devices();
  const auto grants = pool.place({share(0, 50)});
  ASSERT_TRUE(grants);
  EXPECT_TRUE(grants->at(0).at(0).share);
  auto restarted = two_devices();
  restarted.hold({.index = 0, .uuid = "GPU-a", .share = true});
  restarted.hold({.index = 1, .uuid = "GPU-b", .share_memory_bytes = kGb});
  EXPECT_EQ(restarted.free_devices(), 0);
  EXPECT_FALSE(restarted.place({whole(1)}));
  ASSERT_TRUE(restarted.place({share(80, 100)})) << "beside a share that takes nothing";
  EXPECT_FALSE(restarted.place({share(1, 0)}))
      << "the other is held whole: the mode says so, not the figures";
}

TEST(GpuPool, GivesSlicesByProfile) {
  GpuPool pool({{.index = 0,
                 .uuid = "GPU-a",
                 .memory_bytes = 80 * kGb,
                 .slices = {{"MIG-1", "1g.10gb", 7, 0}, {"MIG-2", "1g.10gb", 8, 1}, {"MIG-3", "3g.40gb"}}}});
  const GpuNeed small{.mode = GpuNeed::Mode::slice, .count = 2, .profile = "1g.10gb"};
  const auto grants = pool.place({small});
  ASSERT_TRUE(grants);
  const GpuGrant& second = grants->at(0).at(1);
  EXPECT_EQ(second.mig_uuid, "MIG-2");
  EXPECT_EQ(std::pair(second.gpu_instance, second.compute_instance),
            std::pair(std::int64_t{8}, std::int64_t{1}));
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

/// The driver's tree of capabilities: two slices of device 4, of which the second has two compute instances.
class DeviceNodes : public testing::Test {
 protected:
  DeviceNodes() {
    std::string made = "/tmp/capabilities-XXXXXX";
    tree_ = mkdtemp(made.data());
    access("mig/config", "DeviceFileMinor: 1\nDeviceFileMode: 256\nDeviceFileModify: 1\n");
    access("gpu4/mig/gi7", "DeviceFileMinor: 66\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
    access("gpu4/mig/gi7/ci0", "DeviceFileMinor: 67\n");
    access("gpu4/mig/gi8", "DeviceFileMode: 292\nDeviceFileMinor:\t75\n");
    access("gpu4/mig/gi8/ci0", "DeviceFileMinor: 76\n");
    access("gpu4/mig/gi8/ci1", "DeviceFileMinor: 77\n");
    access("gpu4/mig/gi9", "DeviceFileMinor: none\n");
  }
  ~DeviceNodes() override { std::filesystem::remove_all(tree_); }

  void access(const std::string& folder, const std::string& text) {
    std::filesystem::create_directories(tree_ + "/" + folder);
    std::ofstream(tree_ + "/" + folder + "/access") << text;
  }
  static GpuGrant slice(std::int64_t gpu_instance, std::int64_t compute_instance) {
    return {
        .index = 4, .mig_uuid = "MIG-x", .gpu_instance = gpu_instance, .compute_instance = compute_instance};
  }
  std::string tree_;
};

constexpr std::array kEveryRun = {"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"};

TEST_F(DeviceNodes, OfASliceAreItsOwnTwoOnly) {
  std::vector<std::string> wanted(kEveryRun.begin(), kEveryRun.end());
  wanted.insert(wanted.end(), {"nvidia4", "nvidia-caps/nvidia-cap75", "nvidia-caps/nvidia-cap77"});
  EXPECT_EQ(gpu_device_nodes({slice(8, 1)}, tree_).value(), wanted);
  wanted.insert(wanted.end(), {"nvidia-caps/nvidia-cap76"});
  EXPECT_EQ(gpu_device_nodes({slice(8, 1), slice(8, 0)}, tree_).value(), wanted);
}

TEST_F(DeviceNodes, OfWholeDevicesHaveNoCapabilities) {
  std::vector<std::string> wanted(kEveryRun.begin(), kEveryRun.end());
  wanted.insert(wanted.end(), {"nvidia0", "nvidia2"});
  EXPECT_EQ(gpu_device_nodes({{.index = 0, .uuid = "GPU-a"}, {.index = 2, .uuid = "GPU-c"}}, tree_).value(),
            wanted);
  EXPECT_TRUE(gpu_device_nodes({}, tree_)->empty());
}

TEST_F(DeviceNodes, OfASliceThatTheDriverDoesNotKnowAreRefused) {
  for (const auto& unknown : {slice(5, 0), slice(8, 2), slice(9, 0), slice(-1, -1)})
    EXPECT_EQ(gpu_device_nodes({unknown}, tree_).error().code, Code::failed_precondition);
  EXPECT_EQ(gpu_device_nodes({slice(8, 1)}, tree_ + "/none")->size(), kEveryRun.size() + 1)
      << "no such driver, no such nodes";
}

TEST(Mps, RunsWhileItsSocketIsHeld) {
  std::string folder = "/tmp/mps-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const char* before = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  const std::string restored = before ? before : "";
  setenv("CUDA_MPS_PIPE_DIRECTORY", folder.c_str(), 1);
  EXPECT_FALSE(mps_is_running()) << "nothing there";
  for (const int type : {SOCK_SEQPACKET, SOCK_STREAM}) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    (folder + "/control").copy(address.sun_path, sizeof address.sun_path - 1);
    {
      const Fd daemon(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
      ASSERT_EQ(::bind(daemon.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
      ASSERT_EQ(::listen(daemon.get(), 1), 0);
      EXPECT_TRUE(mps_is_running());
      pollfd waiting{.fd = daemon.get(), .events = POLLIN, .revents = 0};
      EXPECT_EQ(::poll(&waiting, 1, 0), 0) << "it is not disturbed";
    }
    EXPECT_TRUE(std::filesystem::is_socket(folder + "/control"));
    EXPECT_FALSE(mps_is_running()) << "it has died and left its socket";
    std::filesystem::remove(folder + "/control");
  }
  std::ofstream(folder + "/control") << "a file";
  EXPECT_FALSE(mps_is_running());
  before ? setenv("CUDA_MPS_PIPE_DIRECTORY", restored.c_str(), 1) : unsetenv("CUDA_MPS_PIPE_DIRECTORY");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lathe::engines
