#include "app/gateway_metrics.h"

#include <fmt/format.h>

namespace lathe::app {

namespace {

using gateway::Counters;
using gateway::Load;
using gateway::UpstreamCounters;

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
    {"lathe_gateway_concurrency_seconds_total", "counter",
     "Requests under way, integrated over time: its rate is the average concurrency.",
     number<&Counters::concurrency_seconds>},
    {"lathe_gateway_received_bytes_total", "counter", "Bytes passed to a replica.",
     number<&Counters::bytes_in>},
    {"lathe_gateway_sent_bytes_total", "counter", "Bytes passed back.", number<&Counters::bytes_out>},
    {"lathe_gateway_prompt_tokens_total", "counter", "Tokens of prompts, as answers told.",
     number<&Counters::prompt_tokens>},
    {"lathe_gateway_completion_tokens_total", "counter", "Tokens of completions, as answers told.",
     number<&Counters::completion_tokens>},
};

void histogram(http::Exposition& out, const Load& load, const char* name, const char* help,
               gateway::Times Counters::*times) {
  out.metric(name, "histogram", help);
  for (const UpstreamCounters& one : load.upstreams) {
    const gateway::Times& all = one.*times;
    auto sample = [&](double value, std::string_view suffix, std::string_view bound) {
      if (bound.empty())
        out.sample(
            value,
            {{"deployment", one.service_id}, {"version", one.version_id}, {"replica", one.upstream_id}},
            suffix);
      else
        out.sample(value,
                   {{"deployment", one.service_id},
                    {"version", one.version_id},
                    {"replica", one.upstream_id},
                    {"le", bound}},
                   suffix);
    };
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < all.counts.size(); ++i) {
      below += all.counts[i];
      const bool last = i == gateway::kTimeBounds.size();
      sample(static_cast<double>(below), "_bucket",
             last ? std::string("+Inf") : fmt::format("{}", gateway::kTimeBounds[i]));
    }
    sample(all.seconds, "_sum", "");
    sample(static_cast<double>(below), "_count", "");
  }
}

void of_services(http::Exposition& out, const Load& load) {
  out.metric("lathe_gateway_queued_requests", "gauge", "Requests held until a replica is ready.");
  for (const auto& one : load.services)
    out.sample(static_cast<double>(one.queued), {{"deployment", one.service_id}});
  out.metric("lathe_gateway_queued_requests_total", "counter", "Requests held so far.");
  for (const auto& one : load.services)
    out.sample(static_cast<double>(one.queued_total), {{"deployment", one.service_id}});
  out.metric("lathe_gateway_refused_requests_total", "counter",
             "Requests refused because no replica is ready.");
  for (const auto& one : load.services)
    out.sample(static_cast<double>(one.refused_total), {{"deployment", one.service_id}});
}

}  // namespace

void collect_gateway_metrics(http::Exposition& out, const gateway::Gateway& gateway) {
  const Load load = gateway.load();
  for (const Metric& metric : kMetrics) {
    out.metric(metric.name, metric.type, metric.help);
    for (const UpstreamCounters& one : load.upstreams)
      out.sample(metric.value(one),
                 {{"deployment", one.service_id}, {"version", one.version_id}, {"replica", one.upstream_id}});
  }
  histogram(out, load, "lathe_gateway_first_byte_seconds", "Time to the first byte of the answer.",
            &Counters::first_byte);
  histogram(out, load, "lathe_gateway_duration_seconds", "Time to the last byte of the answer.",
            &Counters::duration);
  of_services(out, load);
}

}  // namespace lathe::app
