#include "engines/engine_by_image.h"

#include <algorithm>

namespace lathe::engines {

/// A run is known to the one that started it.
template <class Ask>
auto EngineByImage::either(const Ask& ask) -> decltype(ask(std::declval<Engine&>())) {
  auto answer = ask(*processes_);
  if (answer.ok() || answer.error().code != Code::not_found || !containers_) return answer;
  return ask(*containers_);
}

Capabilities EngineByImage::capabilities() const {
  Capabilities out = processes_->capabilities();
  out.runs_images = containers_ != nullptr;
  out.usable = out.usable || out.runs_images;  // a run that needs processes is refused by itself
  return out;
}

Result<void> EngineByImage::start(const LaunchPlan& plan) {
  if (plan.image == "host") return processes_->start(plan);
  if (containers_) return containers_->start(plan);
  return Error{Code::failed_precondition,
               {"没有配置 Docker 或 Podman，只能运行 host 镜像",
                "no Docker or Podman is configured, so only the image host can run"}};
}

Result<RunStatus> EngineByImage::inspect(const std::string& run_id) {
  return either([&](Engine& engine) { return engine.inspect(run_id); });
}

Result<void> EngineByImage::stop(const std::string& run_id, std::optional<Duration> grace) {
  return either([&](Engine& engine) { return engine.stop(run_id, grace); });
}

Result<void> EngineByImage::remove(const std::string& run_id) {
  TRY(processes_->remove(run_id));
  if (containers_) TRY(containers_->remove(run_id));
  return {};
}

Result<std::vector<std::string>> EngineByImage::list() {
  auto out = TRY(processes_->list());
  if (!containers_) return out;
  for (auto& run_id : TRY(containers_->list())) out.push_back(std::move(run_id));
  std::sort(out.begin(), out.end());
  return out;
}

Result<Usage> EngineByImage::usage(const std::string& run_id) {
  return either([&](Engine& engine) { return engine.usage(run_id); });
}

void EngineByImage::on_change(std::function<void(const std::string&)> callback) {
  processes_->on_change(callback);
  if (containers_) containers_->on_change(std::move(callback));
}

}  // namespace lathe::engines
