#pragma once

#include <string>

#include "base/fd.h"
#include "engines/supervised/rank_body.h"
#include "engines/supervised/record.h"

namespace lathe::engines {

/// Runs what the record says, once, and records how it went in the folder; returns when all of that is on the
/// disk. `lock` is the folder's. Takes over the calling process: its signals, and its children.
int supervise(const RunFolder& folder, const LaunchRecord& launch, Crew& crew);

}  // namespace lathe::engines
