#pragma once

#include <mutex>
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
  /// Whoever grants what the engines have holds this from the look at what is free until what was granted can
  /// be seen by others who look: jobs and services never give away the same thing.
  std::mutex& granting() const { return granting_; }

 private:
  std::vector<EngineEntry> entries_;
  mutable std::mutex granting_;
};

}  // namespace lathe::engines
