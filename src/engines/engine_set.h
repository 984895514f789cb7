#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engines/engine.h"
#include "engines/gpu/gpu_pool.h"

namespace lathe::engines {

/// One engine of this server, and what is known of it.
struct EngineEntry {
  Engine* engine = nullptr;
  std::vector<GpuDevice> gpus = {};  ///< the accelerators it has to give
  bool runs_images = false;          ///< false: only `host`, the machine's own software
};

/// The engines of this server by name. Filled at start, constant from then on; then safe from any thread.
class EngineSet {
 public:
  /// The engine must outlive the set.
  void add(EngineEntry entry) { entries_.push_back(std::move(entry)); }
  /// Null if there is none of that name. Lives as long as the set.
  const EngineEntry* find(std::string_view name) const {
    for (const auto& entry : entries_)
      if (entry.engine->name() == name) return &entry;
    return nullptr;
  }
  const std::vector<EngineEntry>& all() const { return entries_; }

 private:
  std::vector<EngineEntry> entries_;
};

}  // namespace lathe::engines
