#include "jobs/monitor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace lathe::jobs {

namespace {

constexpr std::chrono::milliseconds kInterval{1000};
constexpr int kLastLooks = 256;  // a gigabyte of log that piled up while no server ran

bool looks_like_a_model(const std::vector<DirectoryEntry>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const DirectoryEntry& entry) {
    const std::string_view name = entry.name;
    return name == "config.json" || name == "adapter_config.json" || name == "saved_model.pb" ||
           name.ends_with(".safetensors") || name.ends_with(".gguf") || name.ends_with(".onnx") ||
           name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".pkl") ||
           name.ends_with(".joblib") || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
  });
}

}  // namespace

Monitor::Monitor(const Platform& platform, const Launcher& launcher)
    : platform_(platform), launcher_(launcher) {}

Monitor::~Monitor() {
  stop();
}

void Monitor::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Monitor::start() {
  thread_ = std::thread([this] { run(); });
}

void Monitor::watch(const std::string& job_id) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back([this, job_id] {
      if (auto watch = open(job_id)) watches_[job_id] = std::move(watch);
    });
  }
  wake_.notify_all();
}

void Monitor::finish(const std::string& job_id, bool succeeded, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back([this, job_id, succeeded, done = std::move(done)] {
      last_look(job_id, succeeded);
      watches_.erase(job_id);
      done();
    });
  }
  wake_.notify_all();
}

void Monitor::run() {
  auto next = std::chrono::steady_clock::now() + kInterval;
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (!tasks_.empty()) {
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      continue;
    }
    const auto now = std::chrono::steady_clock::now();
    if (now >= next) {
      lock.unlock();
      look_at_all();
      lock.lock();
      next = now + kInterval;
      continue;
    }
    // Without anything to watch it sleeps until it is told something.
    if (watches_.empty()) {
      wake_.wait(lock);
      next = std::chrono::steady_clock::now() + kInterval;
    } else {
      wake_.wait_until(lock, next);
    }
  }
}

std::unique_ptr<Monitor::Watch> Monitor::open(const std::string& job_id) {
  const auto job = platform_.db.read(
      [&](db::Transaction& tx) -> Result<std::optional<Job>> { return store::find_job(tx, job_id); });
  if (!job.ok() || !*job) return nullptr;
  const Job& found = **job;
  auto watch = std::make_unique<Watch>();
  watch->run_id = found.run_id;
  watch->spec = found.spec;
  watch->since = found.created_at;
  watch->progress = found.progress;
  progress::Collector::Sources sources;
  sources.log_path = launcher_.log_path(job_id, found.attempt, 0);
  sources.since = found.created_at;
  for (auto [directory, slot] : {std::pair(&found.spec.output, &watch->output),
                                 std::pair(&found.spec.checkpoint, &watch->checkpoint)}) {
    if (directory->source == JobDirectory::Source::none) continue;
    auto opened = launcher_.open(*directory);
    if (!opened.ok()) continue;
    if (auto copy = opened->clone(); copy.ok()) sources.directories.push_back(std::move(copy).value());
    *slot = std::move(opened).value();
  }
  watch->collector = std::make_unique<progress::Collector>(std::move(sources));
  return watch;
}

Monitor::News Monitor::look(const std::string& job_id, Watch& watch) {
  News news;
  const auto found = watch.collector->look();
  const Time now = platform_.clock.now();
  for (const auto& metric : found.metrics)
    news.metrics.push_back({metric.key, metric.step, metric.value, metric.time.value_or(now)});
  std::optional<double> progress = found.fraction;
  if (!progress && found.step && found.total_steps && *found.total_steps > 0)
    progress = static_cast<double>(*found.step) / static_cast<double>(*found.total_steps);
  if (progress) {
    const double bounded = std::clamp(*progress, 0.0, 1.0);
    if (std::abs(bounded - watch.progress) >= 0.001) news.progress = watch.progress = bounded;
  }
  look_for_checkpoints(job_id, watch, news);
  return news;
}

void Monitor::look_for_checkpoints(const std::string& job_id, Watch& watch, News& news) {
  std::set<std::string> present;
  for (auto [place, directory] :
       {std::pair("checkpoint", &watch.checkpoint), std::pair("output", &watch.output)}) {
    if (!*directory) continue;
    for (const auto& each : progress::find_checkpoints(**directory)) {
      if (each.modified + std::chrono::seconds(1) < watch.since) continue;
      const auto mark = fmt::format("{}/{}/{}", place, each.path, each.modified.time_since_epoch().count());
      const bool known = watch.known.contains(mark);
      if (!known && !progress::is_complete(**directory, each))
        continue;  // it is being written, or was cut off
      present.insert(mark);
      if (known) continue;
      auto path = Path::parse(each.path, "path");
      if (!path.ok()) continue;
      const auto size = (*directory)->measure(*path);
      news.checkpoints.push_back({.id = platform_.ids.next(),
                                  .job_id = job_id,
                                  .place = place,
                                  .path = each.path,
                                  .kind = "checkpoint",
                                  .step = each.step,
                                  .size_bytes = size.ok() ? static_cast<std::int64_t>(size->bytes) : 0,
                                  .created_at = each.modified});
    }
  }
  for (const auto& mark : watch.known)
    if (!present.contains(mark)) news.vanished.push_back(mark.substr(0, mark.rfind('/')));
  watch.known = std::move(present);
}

void Monitor::look_for_model(const std::string& job_id, Watch& watch, News& news) {
  if (!watch.output || watch.spec.kind == JobKind::evaluation) return;
  const auto entries = watch.output->list({}, "", 1000);
  if (!entries.ok() || !looks_like_a_model(*entries)) return;
  const auto size = watch.output->measure({});
  news.checkpoints.push_back({.id = platform_.ids.next(),
                              .job_id = job_id,
                              .place = "output",
                              .path = "",
                              .kind = "model",
                              .step = -1,
                              .size_bytes = size.ok() ? static_cast<std::int64_t>(size->bytes) : 0,
                              .created_at = platform_.clock.now()});
}

void Monitor::look_at_all() {
  std::map<std::string, News> all;
  for (auto& [id, watch] : watches_)
    if (auto news = look(id, *watch); !news.empty()) all.emplace(id, std::move(news));
  if (!all.empty()) write(all);
}

void Monitor::last_look(const std::string& job_id, bool succeeded) {
  auto& watch = watches_[job_id];
  if (!watch) watch = open(job_id);
  if (!watch) return;
  for (int i = 0; i < kLastLooks; ++i) {
    auto news = look(job_id, *watch);
    const bool more = !news.empty();
    if (succeeded && !more) look_for_model(job_id, *watch, news);
    if (!news.empty()) write({{job_id, std::move(news)}});
    if (!more) return;
  }
}

void Monitor::write(const std::map<std::string, News>& all) {
  const auto written = platform_.db.write([&](db::Transaction& tx) -> Result<void> {
    for (const auto& [job_id, news] : all) {
      if (!store::exists(tx, job_id)) continue;
      for (const auto& metric : news.metrics) store::put_metric(tx, job_id, metric);
      if (news.progress) store::set_progress(tx, job_id, *news.progress);
      for (const auto& place_and_path : news.vanished) {
        const auto slash = place_and_path.find('/');
        store::delete_checkpoint(tx, job_id, place_and_path.substr(0, slash),
                                 place_and_path.substr(slash + 1));
      }
      for (const auto& checkpoint : news.checkpoints) store::put_checkpoint(tx, checkpoint);
    }
    return {};
  });
  if (!written.ok())
    log::warning("metrics of jobs could not be stored: {}", written.error().describe(Language::en));
}

}  // namespace lathe::jobs
