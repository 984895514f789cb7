#include "engines/gpu/nvml.h"

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/fd.h"

namespace lathe::engines {

namespace {

// The part of NVML's stable C interface that is used here (NVML API Reference, "Device Queries" and "MIG").
using Device = struct NvmlDevice*;
struct Memory {
  unsigned long long total, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};
struct DeviceAttributes {
  unsigned multiprocessors, shared_copy_engines, shared_decoders, shared_encoders, shared_jpeg, shared_ofa;
  unsigned gpu_instance_slices, compute_instance_slices;
  unsigned long long memory_mb;
};
constexpr int kSuccess = 0;
constexpr unsigned kMigEnabled = 1;
constexpr unsigned kTextSize = 96;

class Nvml {
 public:
  explicit Nvml(const std::string& library) : handle_(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL), close) {
    if (!handle_) return;
    bind(init, "nvmlInit_v2");
    bind(shutdown, "nvmlShutdown");
    bind(driver_version, "nvmlSystemGetDriverVersion");
    bind(count, "nvmlDeviceGetCount_v2");
    bind(by_index, "nvmlDeviceGetHandleByIndex_v2");
    bind(uuid, "nvmlDeviceGetUUID");
    bind(model, "nvmlDeviceGetName");
    bind(memory, "nvmlDeviceGetMemoryInfo");
    bind(minor_number, "nvmlDeviceGetMinorNumber");
    bind(utilization, "nvmlDeviceGetUtilizationRates");
    // Absent from old drivers: then there is no MIG.
    bind(mig_mode, "nvmlDeviceGetMigMode", true);
    bind(max_slices, "nvmlDeviceGetMaxMigDeviceCount", true);
    bind(slice, "nvmlDeviceGetMigDeviceHandleByIndex", true);
    bind(attributes, "nvmlDeviceGetAttributes_v2", true);
    bind(gpu_instance, "nvmlDeviceGetGpuInstanceId", true);
    bind(compute_instance, "nvmlDeviceGetComputeInstanceId", true);
    started_ = complete_ && init() == kSuccess;
  }
  ~Nvml() {
    if (started_) shutdown();
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool found() const { return handle_ != nullptr; }
  bool started() const { return started_; }

  std::string text(int (*get)(Device, char*, unsigned), Device device) const {
    char buffer[kTextSize] = {};
    return get(device, buffer, sizeof buffer) == kSuccess ? buffer : "";
  }

  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, Device*) = nullptr;
  int (*uuid)(Device, char*, unsigned) = nullptr;
  int (*model)(Device, char*, unsigned) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  int (*minor_number)(Device, unsigned*) = nullptr;
  int (*utilization)(Device, Utilization*) = nullptr;
  int (*mig_mode)(Device, unsigned*, unsigned*) = nullptr;
  int (*max_slices)(Device, unsigned*) = nullptr;
  int (*slice)(Device, unsigned, Device*) = nullptr;
  int (*attributes)(Device, DeviceAttributes*) = nullptr;
  int (*gpu_instance)(Device, unsigned*) = nullptr;
  int (*compute_instance)(Device, unsigned*) = nullptr;

 private:
  static void close(void* handle) {
    if (handle) dlclose(handle);
  }
  template <class Function>
  void bind(Function& function, const char* name, bool optional = false) {
    function = reinterpret_cast<Function>(dlsym(handle_.get(), name));
    complete_ = complete_ && (function || optional);
  }

  std::unique_ptr<void, void (*)(void*)> handle_;
  bool complete_ = true;
  bool started_ = false;
};

/// "1g.10gb": compute slices and memory, the way NVIDIA writes profiles.
std::string profile_of(const DeviceAttributes& a) {
  const auto gb = (a.memory_mb + 512) / 1024;
  return std::to_string(a.gpu_instance_slices) + "g." + std::to_string(gb) + "gb";
}

std::int64_t number(int (*get)(Device, unsigned*), Device device) {
  unsigned value = 0;
  return get && get(device, &value) == kSuccess ? std::int64_t{value} : -1;
}

std::vector<MigSlice> slices_of(const Nvml& nvml, Device device) {
  std::vector<MigSlice> out;
  unsigned now = 0, pending = 0, most = 0;
  if (!nvml.mig_mode || !nvml.max_slices || !nvml.slice || !nvml.attributes) return out;
  if (nvml.mig_mode(device, &now, &pending) != kSuccess || now != kMigEnabled) return out;
  if (nvml.max_slices(device, &most) != kSuccess) return out;
  for (unsigned i = 0; i < most; ++i) {
    Device slice = nullptr;
    DeviceAttributes attributes{};
    if (nvml.slice(device, i, &slice) != kSuccess || nvml.attributes(slice, &attributes) != kSuccess)
      continue;
    out.push_back({nvml.text(nvml.uuid, slice), profile_of(attributes), number(nvml.gpu_instance, slice),
                   number(nvml.compute_instance, slice)});
  }
  return out;
}

}  // namespace

GpuInventory find_gpus(const std::string& library) {
  GpuInventory out;
  const Nvml nvml(library);
  if (!nvml.found()) return out;
  if (!nvml.started()) {
    out.trouble = {"找到了 NVIDIA 驱动库，但无法初始化：GPU 不可用",
                   "the NVIDIA driver's library is there but does not start: no GPU can be used"};
    return out;
  }
  char version[kTextSize] = {};
  if (nvml.driver_version(version, sizeof version) == kSuccess) out.driver_version = version;
  unsigned count = 0;
  nvml.count(&count);
  for (unsigned i = 0; i < count; ++i) {
    Device handle = nullptr;
    Memory memory{};
    unsigned minor = i;
    if (nvml.by_index(i, &handle) != kSuccess || nvml.memory(handle, &memory) != kSuccess) continue;
    nvml.minor_number(handle, &minor);  // the N of /dev/nvidiaN, which is not always the index
    out.devices.push_back({.index = minor,
                           .uuid = nvml.text(nvml.uuid, handle),
                           .model = nvml.text(nvml.model, handle),
                           .memory_bytes = static_cast<std::int64_t>(memory.total),
                           .slices = slices_of(nvml, handle)});
  }
  return out;
}

std::vector<GpuLoad> gpu_load(const std::string& library) {
  std::vector<GpuLoad> out;
  const Nvml nvml(library);
  if (!nvml.started()) return out;
  unsigned count = 0;
  nvml.count(&count);
  for (unsigned i = 0; i < count; ++i) {
    Device handle = nullptr;
    Memory memory{};
    Utilization rates{};
    if (nvml.by_index(i, &handle) != kSuccess || nvml.memory(handle, &memory) != kSuccess) continue;
    nvml.utilization(handle, &rates);
    out.push_back(
        {nvml.text(nvml.uuid, handle), static_cast<int>(rates.gpu), static_cast<std::int64_t>(memory.used)});
  }
  return out;
}

std::string mps_directory() {
  const char* configured = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  return configured ? configured : "/tmp/nvidia-mps";
}

bool mps_is_running() {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = mps_directory() + "/control";
  if (path.size() >= sizeof address.sun_path) return false;
  path.copy(address.sun_path, path.size());
  // The daemon listens for sequenced packets. A datagram socket asks the kernel alone: "wrong type" where
  // somebody holds the address, "refused" where only its file is left. The daemon sees nothing of it.
  const Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return probe && (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
                   errno == EPROTOTYPE);
}

}  // namespace lathe::engines
