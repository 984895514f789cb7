#pragma once

/// What the first program of a container is told by the run's supervisor, and where it finds him.
///
/// The kSetup packet carries three descriptors: a file with the text below, the pipe that becomes standard
/// output and error, and the run's lock, to be held. The text is words that end with NUL:
///
///   the number of arguments, the arguments,
///   the number of variables, `NAME=value`: they win over the image's,
///   the number of defaults, `NAME=value`: only where the image has none of the name,
///   the working directory,
///   the number of mounts, each: its target, and device and inode of what must be there ("259:1:1234"),
///   the number of devices, their paths: all must be there.
namespace lathe::engines::container {

inline constexpr const char* kFirst = "/.lathe/first";      ///< the program itself
inline constexpr const char* kChannel = "/.lathe/channel";  ///< the supervisor's socket
inline constexpr int kDescriptors = 3;

}  // namespace lathe::engines::container
