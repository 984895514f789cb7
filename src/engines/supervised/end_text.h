#pragma once

#include <optional>

#include "engines/engine.h"

namespace lathe::engines {

/// One sentence on how a rank ended, for its user. `exec_error`: the errno with which its command did not
/// start. `first_failed`: the rank on whose account it was stopped.
Text end_text(const RankEnd& end, const LaunchPlan& plan, std::optional<int> exec_error,
              std::optional<std::size_t> first_failed);

}  // namespace lathe::engines
