#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/directory.h"

namespace lathe::progress {

/// A folder that is named as a checkpoint: `checkpoint-<step>` (Hugging Face), `global_step<step>`
/// (DeepSpeed) or `step-<step>`/`epoch-<n>`. A name that begins with a dot, or ends in `.tmp`, is none.
struct Checkpoint {
  std::string path;  ///< relative to its root
  std::int64_t step = 0;
  Time modified{};
  /// It, or another beside it, has the files of a Hugging Face Trainer, which writes trainer_state.json last.
  bool of_trainer = false;
};

/// The checkpoints below a directory by their names alone, oldest first. What a checkpoint holds is part of
/// it and no checkpoint of its own. Bounded in files.
std::vector<Checkpoint> find_checkpoints(const Directory& directory);

/// Is everything of it there? As far as its files say, without reading them whole: those of safetensors are
/// as long as their headers say, those of PyTorch have their end, shards and what an index names are all
/// there, and a Trainer's trainer_state.json is closed. A training program that was killed, or is still
/// writing, leaves one of these undone.
bool is_complete(const Directory& directory, const Checkpoint& checkpoint);

}  // namespace lathe::progress
