/* Stands in for the NVIDIA driver's libnvidia-ml.so.1 on a machine without one: two whole devices, and one that
 * is cut into two MIG slices. Only what the server asks, by NVML's own signatures. */
#include <stdio.h>
#include <string.h>

struct device {
  unsigned minor;
  const char* uuid;
  struct device* slices[2];
};
static struct device small1 = {0, "MIG-1", {0, 0}}, small2 = {0, "MIG-2", {0, 0}};
static struct device devices[] = {
    {0, "GPU-a", {0, 0}}, {1, "GPU-b", {0, 0}}, {4, "GPU-c", {&small1, &small2}}};
enum { kDevices = sizeof devices / sizeof devices[0], kNotFound = 6 };

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) { return snprintf(text, size, "550.1") < 0; }
int nvmlDeviceGetCount_v2(unsigned* count) { *count = kDevices; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, struct device** out) {
  if (i >= kDevices) return kNotFound;
  *out = &devices[i];
  return 0;
}
int nvmlDeviceGetUUID(struct device* d, char* text, unsigned size) { return snprintf(text, size, "%s", d->uuid) < 0; }
int nvmlDeviceGetName(struct device* d, char* text, unsigned size) { (void)d; return snprintf(text, size, "Double") < 0; }
int nvmlDeviceGetMemoryInfo(struct device* d, unsigned long long memory[3]) {
  (void)d;
  memory[0] = memory[1] = 80ULL << 30;
  memory[2] = 0;
  return 0;
}
int nvmlDeviceGetMinorNumber(struct device* d, unsigned* out) { *out = d->minor; return 0; }
int nvmlDeviceGetUtilizationRates(struct device* d, unsigned rates[2]) { (void)d; rates[0] = 7; rates[1] = 3; return 0; }
int nvmlDeviceGetMigMode(struct device* d, unsigned* now, unsigned* pending) { *now = *pending = d->slices[0] != 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(struct device* d, unsigned* out) { (void)d; *out = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(struct device* d, unsigned i, struct device** out) {
  if (i >= 2 || !d->slices[i]) return kNotFound;
  *out = d->slices[i];
  return 0;
}
int nvmlDeviceGetAttributes_v2(struct device* d, void* out) {
  struct { unsigned counts[6], gpu_slices, compute_slices; unsigned long long memory_mb; } it;
  (void)d;
  memset(&it, 0, sizeof it);
  it.gpu_slices = it.compute_slices = 1;
  it.memory_mb = 9856;
  memcpy(out, &it, sizeof it);
  return 0;
}
