#pragma once

#include "base/result.h"

namespace lathe::engines {

/// From here on the calling process and its children cannot make namespaces, mount, load code into the kernel
/// or reach its keyrings: the system calls a job never needs and by which one has got out of such a box
/// before. They fail with EPERM. no_new_privs must be set.
Result<void> install_syscall_filter();

}  // namespace lathe::engines
