#pragma once

#include "base/result.h"

namespace lathe::engines {

/// What this machine lets the calling process have for its runs.
struct NamespaceProbe {
  bool user_namespace = false;  ///< the namespaces need a user namespace around them
  bool network = false;         ///< a network namespace can be made too
};

/// Tries it out in a child process. An error says what is in the way and what to do about it.
Result<NamespaceProbe> probe_namespaces();

}  // namespace lathe::engines
