#pragma once

#include <functional>

#include "http/api.h"
#include "http/metrics.h"

namespace lathe::app {

/// /healthz, /readyz, /metrics, /api/v1/openapi.json and /docs. `api` and `metrics` must outlive the routes.
void add_system_routes(http::Api& api, http::Metrics& metrics, std::function<bool()> ready);

}  // namespace lathe::app
