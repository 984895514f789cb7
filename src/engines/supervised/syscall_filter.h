#pragma once

namespace lathe::engines {

/// From here on the calling process and its children cannot make namespaces, mount, load code into the kernel
/// or reach its keyrings: the system calls a job never needs and by which one has got out of such a box
/// before. They fail with EPERM. no_new_privs must be set. Gives 0 or the errno of what is in the way.
int install_syscall_filter();

}  // namespace lathe::engines
