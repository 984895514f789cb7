/* Stands in for the NVIDIA driver's libnvidia-ml.so.1 on a machine without one: two whole devices, and one that
 * is cut into two MIG slices. Only what the server asks, by NVML's own signatures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct device {
  unsigned minor, instance; /* the second of a slice */
  const char* uuid;
  struct device* slices[2];
};
static struct device small1 = {4, 7, "MIG-1", {0, 0}}, small2 = {4, 8, "MIG-2", {0, 0}};
static struct device all[] = {
    {0, 0, "GPU-a", {0, 0}}, {1, 0, "GPU-b", {0, 0}}, {4, 0, "GPU-c", {&small1, &small2}}};
enum { kWhole = 2, kAll = 3, kNotFound = 6 };

/* With NVML_DOUBLE=mig the one that is cut into slices is all there is, with NVML_DOUBLE=none there is none. */
static unsigned first(void) {
  const char* only = getenv("NVML_DOUBLE");
  if (only && strcmp(only, "none") == 0) return kAll;
  return only && strcmp(only, "mig") == 0 ? kWhole : 0;
}

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) { return snprintf(text, size, "550.1") < 0; }
int nvmlDeviceGetCount_v2(unsigned* count) { *count = kAll - first(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, struct device** out) {
  if (i >= kAll - first()) return kNotFound;
  *out = &all[first() + i];
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
/* In percent, from the file that NVML_DOUBLE_LOAD names. */
int nvmlDeviceGetUtilizationRates(struct device* d, unsigned rates[2]) {
  const char* path = getenv("NVML_DOUBLE_LOAD");
  FILE* file = path ? fopen(path, "r") : 0;
  (void)d;
  rates[0] = rates[1] = 0;
  if (file) {
    if (fscanf(file, "%u", &rates[0]) != 1) rates[0] = 0;
    fclose(file);
  }
  return 0;
}
int nvmlDeviceGetGpuInstanceId(struct device* d, unsigned* out) { *out = d->instance; return 0; }
int nvmlDeviceGetComputeInstanceId(struct device* d, unsigned* out) { (void)d; *out = 0; return 0; }
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
