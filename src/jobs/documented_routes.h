#pragma once

#include "jobs/service.h"

namespace lathe::jobs {

/// Sections 4, 5, 6 and 7.
void add_documented_routes(http::Api& api, Service& service);
/// /api/v1/jobs and /api/v1/job-metrics.
void add_own_routes(http::Api& api, Service& service);

}  // namespace lathe::jobs
