#include "serving/scaler.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lathe::serving {

namespace {

Text metric_name(std::int64_t metric) {
  if (metric == 2) return {"并发数", "concurrency"};
  if (metric == 3) return {"GPU 使用率", "GPU utilisation"};
  return {"每秒请求数", "requests per second"};
}

Text words(const Scaler::Version& version, const ScaleRules& rules, const Scaler::Figures& figures,
           const ScaleDecision& decision) {
  if (decision.reason == ScaleReason::unmeasured)
    return {"无法取得 GPU 使用率，实例数保持不变", "GPU utilisation cannot be measured: the number stays"};
  if (decision.reason == ScaleReason::idle) {
    const auto idle = (rules.stable_window + rules.zero_grace).count() / 1000;
    return {fmt::format("{} 秒内没有请求，服务休眠", idle),
            fmt::format("no request for {} s: it sleeps", idle)};
  }
  const Text metric = metric_name(version.metric);
  const auto seconds = [](Duration window) { return window.count() / 1000; };
  Text out{
      fmt::format("{}：{} 秒平均 {:.2f}，{} 秒平均 {:.2f}，每实例目标 {:.2f}，需要 {} 个实例", metric.zh,
                  seconds(rules.stable_window), figures.stable.value_or(0), seconds(rules.panic_window),
                  figures.panic.value_or(0), figures.target, decision.by_load),
      fmt::format("{}: {:.2f} over {} s, {:.2f} over {} s; {:.2f} for one replica asks for {}", metric.en,
                  figures.stable.value_or(0), seconds(rules.stable_window), figures.panic.value_or(0),
                  seconds(rules.panic_window), figures.target, decision.by_load)};
  if (decision.reason == ScaleReason::at_maximum) {
    out.zh += fmt::format("，上限 {}", version.bounds.max);
    out.en += fmt::format(", the maximum is {}", version.bounds.max);
  } else if (decision.reason == ScaleReason::at_minimum) {
    out.zh += fmt::format("，下限 {}", version.bounds.min);
    out.en += fmt::format(", the minimum is {}", version.bounds.min);
  }
  return out;
}

/// The mean over a replica's devices, added up over the replicas; nothing if one of them is not known.
std::optional<double> use_of(const Scaler::Version& version, const std::map<std::string, int>& use) {
  double sum = 0;
  for (const auto& devices : version.gpus) {
    if (devices.empty()) return std::nullopt;
    double of_replica = 0;
    for (const auto& uuid : devices) {
      const auto it = use.find(uuid);
      if (it == use.end()) return std::nullopt;
      of_replica += it->second;
    }
    sum += of_replica / static_cast<double>(devices.size());
  }
  return sum;
}

/// What has been counted since; a counter that began anew counts from 0.
template <class T>
double since(T now, T before) {
  return static_cast<double>(now >= before ? now - before : now);
}

}  // namespace

void Scaler::see_activity(const gateway::Load& load, const std::set<std::string>& awake, double seconds,
                          Time now) {
  std::map<std::string, Activity> seen;
  for (const auto& service : load.services) {
    const auto it = services_.find(service.service_id);
    // One that is seen for the first time, as after a restart, was asked for just now unless it sleeps.
    const Time first = awake.contains(service.service_id) ? now : Time{};
    Activity activity = it == services_.end() ? Activity{.last = first} : it->second;
    if (it != services_.end())
      activity.held = seconds > 0 ? since(service.queued_seconds, activity.queued_seconds) / seconds : 0;
    if (service.queued > 0 || service.queued_total != activity.queued_total) activity.last = now;
    activity.queued_total = service.queued_total;
    activity.queued_seconds = service.queued_seconds;
    seen.emplace(service.service_id, activity);
  }
  services_ = std::move(seen);
  for (const auto& version : load.versions) {
    const auto known = versions_.find(version.version_id);
    const bool asked = version.requests != (known == versions_.end() ? 0 : known->second.requests);
    const auto it = services_.find(version.service_id);
    if (it != services_.end() && (asked || version.in_flight > 0)) it->second.last = now;
  }
}

std::vector<Scaler::Decision> Scaler::tick(const gateway::Load& load, const std::vector<Version>& versions,
                                           Time now) {
  const std::scoped_lock lock(mutex_);
  const double seconds = last_tick_ ? std::chrono::duration<double>(load.at - *last_tick_).count() : 0;
  const Duration span{static_cast<std::int64_t>(seconds * 1000)};
  last_tick_ = load.at;
  std::set<std::string> awake;
  for (const auto& version : versions)
    if (version.desired > 0) awake.insert(version.service_id);
  see_activity(load, awake, seconds, now);

  std::map<std::string, const gateway::VersionCounters*> counted;
  for (const auto& counters : load.versions) counted[counters.version_id] = &counters;
  std::map<std::string, int> shares;
  bool needs_gpus = false;
  for (const auto& version : versions) {
    shares[version.service_id] += version.rate;
    needs_gpus = needs_gpus || (version.metric == 3 && version.ready > 0);
  }
  const auto gpus = needs_gpus ? gpu_use_() : std::map<std::string, int>{};

  std::vector<Decision> out;
  std::map<std::string, Memory> kept;
  for (const auto& version : versions) {
    const auto before = versions_.find(version.id);
    Memory memory;
    if (before != versions_.end()) {
      memory = std::move(before->second);
    } else {
      memory.state = resumed(version.desired, version.running, now);
    }
    const auto it = counted.find(version.id);
    const double concurrency_seconds = it == counted.end() ? 0 : it->second->concurrency_seconds;
    const std::uint64_t requests = it == counted.end() ? 0 : it->second->requests;
    if (before != versions_.end() && seconds > 0) {
      const Activity& service = services_[version.service_id];
      const double share =
          shares[version.service_id] > 0 ? version.rate / static_cast<double>(shares[version.service_id]) : 0;
      if (version.metric == 3) {
        if (const auto use = use_of(version, gpus)) memory.window.add(now, span, *use);
      } else if (version.metric == 2) {
        const double mean = since(concurrency_seconds, memory.concurrency_seconds) / seconds;
        memory.window.add(now, span, mean + service.held * share);
      } else {
        memory.window.add(now, span, since(requests, memory.requests) / seconds);
      }
    }
    if (version.may_shrink && !memory.could_shrink) {
      // What it saw while others bore its traffic says nothing about what it is to bear now.
      memory.window.clear();
      memory.state = resumed(version.desired, version.running, now);
    }
    memory.could_shrink = version.may_shrink;
    memory.concurrency_seconds = concurrency_seconds;
    memory.requests = requests;
    memory.state.desired = version.desired;

    memory.figures.target = version.threshold * rules_.utilisation;
    memory.figures.stable = memory.window.mean(now, rules_.stable_window);
    memory.figures.panic = memory.window.mean(now, rules_.panic_window);
    const Observed seen{.ready = version.ready,
                        .stable = memory.figures.stable,
                        .panic = memory.figures.panic,
                        .idle = now - services_[version.service_id].last};
    auto decision = scale(rules_, memory.figures.target, version.bounds, memory.state, seen, now);
    if (decision.next.desired < version.desired && !version.may_shrink) {
      decision.next.desired = version.desired;
      decision.reason = ScaleReason::steady;
    }
    memory.figures.panicking = decision.next.panic_since.has_value();
    // At the first tick there is nothing to measure by yet, with any metric.
    const bool unmeasured = decision.reason == ScaleReason::unmeasured && version.metric == 3 &&
                            version.ready > 0 && before != versions_.end();
    if (decision.next.desired != version.desired || (unmeasured && !memory.told_unmeasured))
      out.push_back({version.id, version.desired, decision.next.desired, decision.reason,
                     words(version, rules_, memory.figures, decision)});
    memory.told_unmeasured = unmeasured;
    memory.state = decision.next;
    kept.emplace(version.id, std::move(memory));
  }
  versions_ = std::move(kept);
  return out;
}

void Scaler::woken(const std::string& service_id, const std::string& version_id, Time now) {
  const std::scoped_lock lock(mutex_);
  services_[service_id].last = now;
  const auto it = versions_.find(version_id);
  if (it == versions_.end()) return;
  it->second.window.clear();
  it->second.state = {};
}

std::optional<Scaler::Figures> Scaler::figures(const std::string& version_id) const {
  const std::scoped_lock lock(mutex_);
  const auto it = versions_.find(version_id);
  if (it == versions_.end()) return std::nullopt;
  return it->second.figures;
}

}  // namespace lathe::serving
