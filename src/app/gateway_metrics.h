#pragma once

#include "gateway/gateway.h"
#include "http/metrics.h"

namespace lathe::app {

/// What every replica has answered.
void collect_gateway_metrics(http::Exposition& out, const gateway::Gateway& gateway);

}  // namespace lathe::app
