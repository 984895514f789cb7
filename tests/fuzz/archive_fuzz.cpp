#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "images/archive.h"

/// Image archives come from users: whatever the bytes, reading them ends soon, every name it gives stays
/// inside, and no more comes out than the limits allow.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  lathe::Fd file(::memfd_create("archive", MFD_CLOEXEC));
  if (!file || ::write(file.get(), data, size) != static_cast<ssize_t>(size) ||
      ::lseek(file.get(), 0, SEEK_SET) != 0)
    return 0;
  const lathe::images::ArchiveLimits limits{.max_bytes = 1 << 20, .max_entries = 100, .max_ratio = 200};
  auto reader =
      lathe::images::ArchiveReader::open(std::move(file), limits, [](std::uint64_t) { return true; });
  if (!reader) return 0;
  std::uint64_t total = 0, entries = 0;
  while (true) {
    auto entry = (*reader)->next();
    if (!entry || !*entry) return 0;
    for (const auto& name : {(*entry)->name, (*entry)->target})
      if (name.starts_with("/") || name == ".." || name.starts_with("../") ||
          name.find("/../") != std::string::npos)
        std::abort();
    if (++entries > limits.max_entries) std::abort();
    if (entries % 3 == 0) continue;  // what is not read is skipped
    while (true) {
      const auto piece = (*reader)->read();
      if (!piece) return 0;
      if (piece->empty()) break;
      total += piece->size();
      if (total > limits.max_bytes) std::abort();
    }
  }
}
