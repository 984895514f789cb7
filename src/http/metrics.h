#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lathe::http {

/// Writes the Prometheus text format, version 0.0.4
/// (https://prometheus.io/docs/instrumenting/exposition_formats/). All samples of a metric are written one
/// after the other; units are base units (seconds, bytes), counters end in `_total`.
class Exposition {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;
  /// Begins a metric: `type` is "counter", "gauge" or "histogram".
  void metric(std::string_view name, std::string_view type, std::string_view help);
  /// One sample of the metric begun last. `suffix` is "_bucket", "_sum" or "_count" of a histogram.
  void sample(double value, Labels labels = {}, std::string_view suffix = {});
  /// A metric with one sample.
  void gauge(std::string_view name, std::string_view help, double value);
  void counter(std::string_view name, std::string_view help, double value);
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  std::string name_;
};

/// What the platform counts. Safe from any thread.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  /// For Api::Hooks::observe: counts one answered call. Takes no lock but a shared one.
  void observe(std::string_view route_id, int status, double seconds);
  /// Called at every scrape, one scrape at a time; registered at start. Names begin with `lathe_`.
  void add_collector(std::function<void(Exposition&)> collect);
  std::string expose();

 private:
  struct RouteStats;
  RouteStats& stats_of(std::string_view route_id);

  std::shared_mutex mutex_;
  std::unordered_map<std::string, std::unique_ptr<RouteStats>> routes_;
  std::mutex scrape_mutex_;
  std::vector<std::function<void(Exposition&)>> collectors_;
};

}  // namespace lathe::http
