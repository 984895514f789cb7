#include "serving/health.h"

#include <fmt/format.h>

#include <algorithm>

namespace lathe::serving {

namespace {

Text what_was_seen(const Health& health) {
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

Text what_hangs(const Health& health, const Work& work) {
  Text out = what_was_seen(health);
  const auto seconds = work.stalled.count() / 1000;
  out.zh += fmt::format("；{} 个请求正在处理，已 {} 秒没有进展", work.under_way, seconds);
  out.en += fmt::format("; {} requests are under way, without progress for {} s", work.under_way, seconds);
  return out;
}

}  // namespace

Verdict judge(const HealthRules& rules, ReplicaState state, const Health& health, const Work& work,
              Duration age) {
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
  const auto verdict = [](bool replace, Text words) -> Verdict {
    return {replace ? Finding::replace : Finding::unready, "NotAnswering", std::move(words)};
  };
  if (health.last == Answer::refused)
    return verdict(health.lasting >= rules.refused_limit, what_was_seen(health));
  if (health.in_a_row < rules.tries) return {};
  if (work.under_way == 0) return verdict(health.lasting >= rules.failing_limit, what_was_seen(health));
  // What it did before it fell silent does not count against it.
  const Duration hanging = std::min(work.stalled, health.lasting);
  if (hanging < rules.stall_limit) return {};
  return verdict(hanging >= rules.stall_limit + rules.failing_limit, what_hangs(health, work));
}

}  // namespace lathe::serving
