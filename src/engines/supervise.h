#pragma once

namespace lathe::engines {

/// The main function of `lathe supervise RUN-ID`: runs what launch.json in the working directory says, once,
/// and records how it went. Started by an engine in a session of its own; it does not need the server.
/// argv[0] is the program, argv[1] "supervise", argv[2] the run's id, which is there to be seen in `ps`.
/// Returns 0 also when another supervisor has claimed the run; 1 when the directory is no run's.
int supervise_main(int argc, char** argv);

}  // namespace lathe::engines
