#pragma once

#include "jobs/jobs_wire.h"
#include "jobs/own_wire.h"

/// Jobs in the words of the two APIs. Pure.
namespace lathe::jobs {

TaskStatus status_of(const Job& job, Time now, Language language);
TaskRow row_of(const Job& job, Time now, Language language);
EvaluationRow evaluation_row_of(const Job& job, Time now);
CheckpointRow checkpoint_row_of(const store::Checkpoint& checkpoint, const JobSpec& spec);

namespace own {
JobRow row_of(const Job& job, Time now, Language language);
RunOut run_of(const store::Run& run);
EventOut event_of(const store::Event& event, Language language);
MetricOut metric_of(const store::Metric& metric);
}  // namespace own

}  // namespace lathe::jobs
