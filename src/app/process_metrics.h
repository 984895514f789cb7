#pragma once

#include "http/metrics.h"

namespace lathe::app {

/// The process's own figures under the names that Prometheus' client libraries use.
void collect_process_metrics(http::Exposition& out);

}  // namespace lathe::app
