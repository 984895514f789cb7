#include "engines/supervised/end_text.h"

#include <fmt/format.h>
#include <string.h>

#include <cerrno>

namespace lathe::engines {

namespace {

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? fmt::format("{} (SIG{})", signal, name) : std::to_string(signal);
}

Text exec_text(const std::string& command, int why) {
  if (why == ENOENT)
    return {fmt::format("找不到命令：{}", command), fmt::format("{}: command not found", command)};
  if (why == EACCES)
    return {fmt::format("没有执行权限：{}", command), fmt::format("{}: not executable", command)};
  if (why == ENOEXEC)
    return {fmt::format("不是可执行程序，或其解释器不存在：{}", command),
            fmt::format("{}: not a program, or its interpreter is missing", command)};
  if (why == EAGAIN)
    return {fmt::format("进程数已达上限，无法启动：{}", command),
            fmt::format("{}: the limit on processes leaves no room to start it", command)};
  if (why == E2BIG)
    return {fmt::format("参数和环境变量过长：{}", command),
            fmt::format("{}: its arguments and environment are too long", command)};
  return {fmt::format("无法启动 {}：{}", command, ::strerror(why)),
          fmt::format("cannot start {}: {}", command, ::strerror(why))};
}

Text with_outcome(const RankEnd& end, std::string zh, std::string en) {
  if (end.exit_code) {
    zh += fmt::format("，退出码 {}", *end.exit_code);
    en += fmt::format("; it exited with code {}", *end.exit_code);
  } else if (end.signal) {
    zh += fmt::format("，被信号 {} 终止", signal_name(*end.signal));
    en += fmt::format("; it was ended by signal {}", signal_name(*end.signal));
  }
  return {std::move(zh), std::move(en)};
}

}  // namespace

Text end_text(const RankEnd& end, const LaunchPlan& plan, std::optional<int> exec_error,
              std::optional<std::size_t> first_failed) {
  if (exec_error) return exec_text(plan.argv[0], *exec_error);
  switch (end.cause) {
    case EndCause::exited:
      if (end.exit_code == 0) return {"正常结束", "completed"};
      return {fmt::format("退出码 {}", *end.exit_code), fmt::format("exited with code {}", *end.exit_code)};
    case EndCause::signaled:
      return {fmt::format("被信号 {} 终止", signal_name(*end.signal)),
              fmt::format("killed by signal {}", signal_name(*end.signal))};
    case EndCause::out_of_memory:
      return {"超出内存上限，被系统终止", "killed for going over its memory limit"};
    case EndCause::time_limit:
      return with_outcome(end, fmt::format("超过时限（{}）", format_duration(plan.time_limit)),
                          fmt::format("stopped at its time limit of {} s", plan.time_limit.count() / 1000.0));
    case EndCause::stopped:
      return with_outcome(end, "按请求停止", "stopped on request");
    case EndCause::sibling_failed:
      if (!first_failed) return {"其他进程未能启动", "not started, since another rank could not start"};
      return with_outcome(end, fmt::format("进程 {} 失败，因此被停止", *first_failed),
                          fmt::format("stopped because rank {} failed", *first_failed));
    case EndCause::launch_failed:
      return {"未能启动", "could not be started"};
    case EndCause::lost:
      return {"进程随监管进程或机器一起消失", "vanished together with its supervisor or its machine"};
  }
  return {};
}

}  // namespace lathe::engines
