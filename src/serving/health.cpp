#include "serving/health.h"

#include <fmt/format.h>

namespace lathe::serving {

namespace {

Text words(const Health& health) {
  const auto seconds = health.lasting.count() / 1000;
  switch (health.last) {
    case Health::Answer::refused:
      return {fmt::format("端口拒绝连接已 {} 秒", seconds),
              fmt::format("its port has refused connections for {} s", seconds)};
    case Health::Answer::silent:
      return {fmt::format("已 {} 秒没有应答", seconds), fmt::format("it has not answered for {} s", seconds)};
    case Health::Answer::bad:
      if (health.status == 0) return {"应答不是 HTTP", "its answer is not HTTP"};
      return {fmt::format("健康检查返回 {}，已 {} 秒", health.status, seconds),
              fmt::format("its health check has answered {} for {} s", health.status, seconds)};
    case Health::Answer::unknown:
    case Health::Answer::good:
      return {};
  }
  return {};
}

}  // namespace

Verdict judge(const HealthRules& rules, ReplicaState state, const Health& health, bool busy, Duration age) {
  using Answer = Health::Answer;
  if (health.last == Answer::good) return {.finding = Finding::ready, .reason = {}, .detail = {}};
  if (state == ReplicaState::starting) {
    if (age < rules.start_limit) return {};
    const auto limit = rules.start_limit.count() / 1000;
    return {
        Finding::replace,
        "StartTimeout",
        {fmt::format("启动 {} 秒后仍未就绪", limit), fmt::format("not ready {} s after its start", limit)}};
  }
  if (health.last == Answer::unknown) return {};
  const bool refused = health.last == Answer::refused;
  if (!refused && (busy || health.in_a_row < rules.tries)) return {};
  const Duration limit = refused ? rules.refused_limit : rules.failing_limit;
  return {health.lasting >= limit ? Finding::replace : Finding::unready, "NotAnswering", words(health)};
}

}  // namespace lathe::serving
