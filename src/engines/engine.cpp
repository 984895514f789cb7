#include "engines/engine.h"

namespace lathe::engines {

std::string_view name(EndCause cause) {
  switch (cause) {
    case EndCause::exited:
      return "exited";
    case EndCause::signaled:
      return "signaled";
    case EndCause::out_of_memory:
      return "out_of_memory";
    case EndCause::time_limit:
      return "time_limit";
    case EndCause::stopped:
      return "stopped";
    case EndCause::sibling_failed:
      return "sibling_failed";
    case EndCause::launch_failed:
      return "launch_failed";
    case EndCause::lost:
      return "lost";
  }
  return "lost";
}

}  // namespace lathe::engines
