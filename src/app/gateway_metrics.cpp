#include "app/gateway_metrics.h"

namespace lathe::app {

namespace {

using Counters = gateway::UpstreamCounters;

struct Metric {
  const char* name;
  const char* type;
  const char* help;
  double (*value)(const Counters&);
};

template <auto Member>
double number(const Counters& counters) {
  return static_cast<double>(counters.*Member);
}

constexpr Metric kMetrics[] = {
    {"lathe_gateway_requests_total", "counter", "Requests passed to a replica.", number<&Counters::requests>},
    {"lathe_gateway_failures_total", "counter",
     "Of those, without an answer or with a status of 500 and above.", number<&Counters::failures>},
    {"lathe_gateway_in_flight_requests", "gauge", "Requests a replica is answering.",
     number<&Counters::in_flight>},
    {"lathe_gateway_received_bytes_total", "counter", "Bytes passed to a replica.",
     number<&Counters::bytes_in>},
    {"lathe_gateway_sent_bytes_total", "counter", "Bytes passed back.", number<&Counters::bytes_out>},
    {"lathe_gateway_first_byte_seconds_total", "counter", "Time to the first byte of the answer, summed up.",
     number<&Counters::first_byte_seconds>},
};

}  // namespace

void collect_gateway_metrics(http::Exposition& out, const gateway::Gateway& gateway) {
  const auto all = gateway.counters();
  for (const Metric& metric : kMetrics) {
    out.metric(metric.name, metric.type, metric.help);
    for (const Counters& counters : all)
      out.sample(metric.value(counters), {{"deployment", counters.service_id},
                                          {"version", counters.version_id},
                                          {"replica", counters.upstream_id}});
  }
}

}  // namespace lathe::app
