#include "engines/docker/image_loader.h"

#include "base/log.h"

namespace lathe::engines {

ImageLoader::ImageLoader(const Daemon& daemon, Find find, Duration retry, std::string prefix,
                         Duration unload_every)
    : daemon_(daemon),
      find_(std::move(find)),
      retry_(retry),
      unload_every_(unload_every),
      prefix_(std::move(prefix)),
      thread_([this] { run(); }) {}

ImageLoader::~ImageLoader() {
  {
    const std::lock_guard guard(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Result<std::optional<std::string>> ImageLoader::look(const std::string& image) {
  std::string id;
  {
    const std::lock_guard guard(mutex_);
    if (const auto known = ids_.find(image); known != ids_.end()) id = known->second;
  }
  if (id.empty()) {
    id = TRY(find_(image)).id;
    const std::lock_guard guard(mutex_);
    ids_[image] = id;
  }
  if (TRY(daemon_.has_image(id))) return std::optional<std::string>(id);
  return std::optional<std::string>{};
}

void ImageLoader::want(const std::string& image, Done done) {
  {
    const std::lock_guard guard(mutex_);
    wanted_.emplace_back(image, std::move(done));
  }
  changed_.notify_all();
}

void ImageLoader::run() {
  while (true) {
    std::string image;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, unload_every_, [&] { return ending_ || !wanted_.empty(); });
      if (ending_) return;
      if (!wanted_.empty()) image = wanted_.front().first;
    }
    if (image.empty()) {
      unload();
      continue;
    }
    const Outcome outcome = fetch(image);
    std::deque<Done> waiting;
    {
      const std::lock_guard guard(mutex_);
      if (ending_) return;
      for (auto it = wanted_.begin(); it != wanted_.end();) {
        if (it->first != image) {
          ++it;
          continue;
        }
        waiting.push_back(std::move(it->second));
        it = wanted_.erase(it);
      }
    }
    for (const auto& done : waiting) done(outcome);
  }
}

/// On the thread that loads: nothing is removed that is just being brought. A job that is to start keeps its
/// image in the store.
void ImageLoader::unload() {
  if (prefix_.empty()) return;
  const auto names = daemon_.image_names(prefix_);
  if (!names.ok()) return;  // the daemon is away: later
  for (const std::string& name : *names) {
    {
      const std::lock_guard guard(mutex_);
      if (ending_ || !wanted_.empty()) return;  // that comes first
    }
    const std::string image = "sha256:" + name.substr(prefix_.size());
    const auto found = find_(image);
    if (found.ok() || found.error().code != Code::not_found) continue;
    // Refused while a container is there; the next look comes.
    if (!daemon_.remove_image(name).ok()) continue;
    log::info("image {}: removed from the container daemon, since it is in the store no more", image);
    const std::lock_guard guard(mutex_);
    ids_.erase(image);
  }
}

/// False: it is time to end.
bool ImageLoader::pause() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, retry_, [&] { return ending_; });
  return !ending_;
}

ImageLoader::Outcome ImageLoader::fetch(const std::string& image) {
  while (true) {
    auto present = look(image);
    Error why;
    if (present.ok() && *present) return {**present, std::nullopt};
    if (present.ok()) {
      auto tar = find_(image);
      if (!tar.ok()) return {{}, std::move(tar).error()};
      log::info("image {}: loading {} MiB into the container daemon", image, tar->size >> 20);
      auto loaded = daemon_.load(tar->size, tar->write);
      if (loaded.ok()) {
        auto arrived = daemon_.has_image(tar->id);
        if (arrived.ok() && *arrived) return {tar->id, std::nullopt};
        if (arrived.ok())
          return {{},
                  Error{Code::internal,
                        {"容器引擎载入镜像后却没有它：" + tar->id,
                         "the container daemon has loaded the image but does not have it: " + tar->id}}};
        loaded = std::move(arrived).error();
      }
      why = std::move(loaded).error();
    } else {
      why = std::move(present).error();
    }
    if (why.code != Code::unavailable) return {{}, std::move(why)};
    log::warning("image {}: {}", image, why.describe(Language::en));
    if (!pause()) return {{}, std::move(why)};
  }
}

}  // namespace lathe::engines
