#include "http/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace lathe::http {

namespace {

constexpr std::array<double, 10> kBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 5, 30};

std::string escaped(std::string_view text, bool quotes) {
  std::string out;
  for (char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

}  // namespace

void Exposition::metric(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(help, false), name, type);
}

void Exposition::sample(double value, Labels labels, std::string_view suffix) {
  text_ += name_;
  text_ += suffix;
  char separator = '{';
  for (const auto& [label, word] : labels) {
    text_ += fmt::format("{}{}=\"{}\"", separator, label, escaped(word, true));
    separator = ',';
  }
  if (separator == ',') text_ += '}';
  text_ += ' ';
  text_ += number(value);
  text_ += '\n';
}

void Exposition::gauge(std::string_view name, std::string_view help, double value) {
  metric(name, "gauge", help);
  sample(value);
}

void Exposition::counter(std::string_view name, std::string_view help, double value) {
  metric(name, "counter", help);
  sample(value);
}

struct Metrics::RouteStats {
  std::array<std::atomic<std::uint64_t>, 6> by_class{};  ///< of the status: 2 is 2xx
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> by_time{};
  std::atomic<std::uint64_t> nanoseconds{0};
};

Metrics::Metrics() = default;
Metrics::~Metrics() = default;

Metrics::RouteStats& Metrics::stats_of(std::string_view route_id) {
  const std::string key(route_id);
  {
    const std::shared_lock lock(mutex_);
    if (const auto it = routes_.find(key); it != routes_.end()) return *it->second;
  }
  const std::unique_lock lock(mutex_);
  auto& slot = routes_[key];
  if (!slot) slot = std::make_unique<RouteStats>();
  return *slot;
}

void Metrics::observe(std::string_view route_id, int status, double seconds) {
  RouteStats& stats = stats_of(route_id);
  const auto kind = static_cast<std::size_t>(status / 100);
  ++stats.by_class[kind < stats.by_class.size() ? kind : 0];
  std::size_t bucket = 0;
  while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
  ++stats.by_time[bucket];
  stats.nanoseconds += static_cast<std::uint64_t>(seconds * 1e9);
}

void Metrics::add_collector(std::function<void(Exposition&)> collect) {
  collectors_.push_back(std::move(collect));
}

std::string Metrics::expose() {
  const std::lock_guard scraping(scrape_mutex_);
  Exposition out;
  std::map<std::string, RouteStats*> routes;
  {
    const std::shared_lock lock(mutex_);
    for (const auto& [id, stats] : routes_) routes.emplace(id.empty() ? "none" : id, stats.get());
  }
  out.metric("lathe_http_requests_total", "counter", "Answered calls by route and class of status.");
  for (const auto& [id, stats] : routes)
    for (std::size_t kind = 0; kind < stats->by_class.size(); ++kind)
      if (const auto count = stats->by_class[kind].load())
        out.sample(static_cast<double>(count), {{"route", id}, {"status", fmt::format("{}xx", kind)}});

  out.metric("lathe_http_request_duration_seconds", "histogram",
             "Time from a whole request to its answer's head.");
  for (const auto& [id, stats] : routes) {
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < stats->by_time.size(); ++i) {
      below += stats->by_time[i].load();
      const std::string bound = i < kBounds.size() ? number(kBounds[i]) : "+Inf";
      out.sample(static_cast<double>(below), {{"route", id}, {"le", bound}}, "_bucket");
    }
    out.sample(static_cast<double>(stats->nanoseconds.load()) / 1e9, {{"route", id}}, "_sum");
    out.sample(static_cast<double>(below), {{"route", id}}, "_count");
  }
  for (const auto& collect : collectors_) collect(out);
  return out.take();
}

}  // namespace lathe::http
