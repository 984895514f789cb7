#pragma once

/// What a rank's first process and its supervisor say to each other on a SOCK_SEQPACKET socket, one packet
/// each. Also read by the container's own first program, so nothing but the standard library's basics here.
namespace lathe::engines::channel {

inline constexpr char kReady = 'R';   ///< up: the view stands, the rights are dropped
inline constexpr char kFailed = 'E';  ///< up, then zh, NUL, en: the view could not be built
inline constexpr char kGo = 'G';      ///< down: run the command
inline constexpr char kExec = 'P';  ///< up, then an int: 0, or the errno with which the command did not start
inline constexpr char kExit = 'X';  ///< up, then an int: the command's wait status
inline constexpr char kStop = 'T';  ///< down: SIGTERM to everything, then stay until all of it has ended

// Containers only.
inline constexpr char kSetup = 'S';  ///< down, first, with three descriptors: see docker/init/setup.h
inline constexpr char kDone = 'D';   ///< up: about to end, and the container's accounts with it
inline constexpr char kBye = 'B';    ///< down: they have been read

}  // namespace lathe::engines::channel
