#include "images/importer.h"

#include <algorithm>

#include "base/log.h"
#include "images/contents_store.h"
#include "images/import_entries_store.h"
#include "images/pull/pull.h"
#include "images/registry/registry_store.h"

namespace lathe::images {

Importer::~Importer() {
  stop();
}

void Importer::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

Result<void> Importer::start() {
  for (auto& row : TRY(db_.read([](db::Transaction& tx) -> Result<std::vector<store::ImportRow>> {
         return store::unfinished_imports(tx);
       })))
    queue_.push_back(std::move(row));
  for (std::size_t i = 0; i < options_.importers; ++i) threads_.emplace_back([this] { work(); });
  return {};
}

void Importer::add(const store::ImportRow& row, pull::Credentials credentials) {
  {
    std::lock_guard lock(mutex_);
    if (!credentials.empty()) credentials_[row.id] = std::move(credentials);
    queue_.push_back(row);
  }
  wake_.notify_all();  // one might be a pull that pauses
}

void Importer::cancel(std::string_view image_id) {
  {
    std::lock_guard lock(mutex_);
    for (const auto& row : queue_)
      if (row.image_id == image_id) credentials_.erase(row.id);
    std::erase_if(queue_, [&](const auto& row) { return row.image_id == image_id; });
    for (auto& [id, running] : running_)
      if (running->image_id == image_id) running->cancelled = true;
  }
  wake_.notify_all();
}

std::optional<Importer::Progress> Importer::progress(std::string_view import_id) const {
  std::lock_guard lock(mutex_);
  const auto it = running_.find(import_id);
  if (it == running_.end()) return std::nullopt;
  return Progress{it->second->done, it->second->total};
}

std::optional<Importer::Progress> Importer::progress_of_image(std::string_view image_id) const {
  std::lock_guard lock(mutex_);
  for (const auto& [id, running] : running_)
    if (running->image_id == image_id) return Progress{running->done, running->total};
  return std::nullopt;
}

/// The first that may begin. A slow registry holds a thread for long: one user's pulls never hold them all.
std::deque<store::ImportRow>::iterator Importer::next() {
  const std::size_t most = options_.importers > 1 ? options_.importers - 1 : 1;
  return std::find_if(queue_.begin(), queue_.end(), [&](const store::ImportRow& row) {
    if (row.reference.empty()) return true;
    const auto mine = std::count_if(running_.begin(), running_.end(),
                                    [&](const auto& one) { return one.second->puller == row.user_id; });
    return static_cast<std::size_t>(mine) < most;
  });
}

void Importer::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || next() != queue_.end(); });
    if (stop_) return;
    const auto chosen = next();
    const store::ImportRow row = std::move(*chosen);
    queue_.erase(chosen);
    auto running = std::make_shared<Running>();
    running->image_id = row.image_id;
    if (!row.reference.empty()) running->puller = row.user_id;
    running_[row.id] = running;
    lock.unlock();
    run(row, *running);
    lock.lock();
    running_.erase(row.id);
    credentials_.erase(row.id);
  }
}

void Importer::run(const store::ImportRow& row, Running& running) {
  auto imported = import(row, running);
  if (imported) {
    log::info("image {}: tag {} imported from {}", row.image_id, row.tag,
              row.reference.empty() ? row.file_path : row.reference);
  } else if (stop_) {
    return;  // it begins again at the next start
  } else if (!running.cancelled) {
    fail(row, imported.error());
  }
  // Nothing is held any more: what the image does not need goes.
  if (unused_) unused_(running.entries);
  notify(row.image_id);
}

/// What was brought into the store before the server ended need not be again, if the file is the same.
Result<void> Importer::remember(const store::ImportRow& row, std::string_view source, ImportRequest& request,
                                Running& running) {
  request.finished =
      TRY(db_.read([&](db::Transaction& tx) -> Result<std::map<std::string, Blob, std::less<>>> {
        return store::import_entries(tx, row.id, source);
      }));
  for (const auto& [name, blob] : request.finished) running.entries.push_back(blob.digest);
  request.on_finished = [this, &row, &running, of = std::string(source)](std::string_view name,
                                                                         const Blob& blob) {
    running.entries.push_back(blob.digest);
    return db_.write([&](db::Transaction& tx) -> Result<void> {
      if (!store::import(tx, row.id)) return not_found({"上传", "import"}, row.id);
      store::add_import_entry(tx, row.id, of, name, blob);
      return {};
    });
  };
  return {};
}

Result<void> Importer::import(const store::ImportRow& row, Running& running) {
  return row.reference.empty() ? import_file(row, running) : pull(row, running);
}

pull::Credentials Importer::credentials_of(const std::string& import_id) {
  const std::lock_guard lock(mutex_);
  const auto it = credentials_.find(import_id);
  return it == credentials_.end() ? pull::Credentials{} : it->second;
}

/// False: it is time to end.
bool Importer::pause(Duration how_long, const Running& running) {
  std::unique_lock lock(mutex_);
  const auto over = [&] { return stop_ || running.cancelled; };
  return !wake_.wait_for(lock, how_long, over);
}

Result<std::string> Importer::image_name(const store::ImportRow& row) {
  return db_.read([&](db::Transaction& tx) -> Result<std::string> {
    const auto image = store::image(tx, row.image_id);
    if (!image) return not_found({"镜像", "image"}, row.image_id);
    return image->name;
  });
}

Result<void> Importer::pull(const store::ImportRow& row, Running& running) {
  pull::Request request;
  request.credentials = credentials_of(row.id);
  if (row.with_credentials && request.credentials.empty())
    return Error{
        Code::failed_precondition,
        {"服务器重启后不再保有此次拉取的用户名和密码，请重新拉取；已下载的内容会继续使用",
         "the server was restarted and does not have the user name and password any more; pull again, "
         "what was fetched is not fetched again"}};
  request.name = TRY(pull::parse_remote(row.reference));
  const pull::Rules rules{options_.registries, options_.insecure_registries};
  if (!rules.may_pull_from(request.name.authority))
    return Error{Code::permission_denied,
                 {"管理员未允许从此仓库拉取：" + request.name.authority,
                  "the administrator does not allow pulls from " + request.name.authority}};
  const std::string name = TRY(image_name(row));
  request.user_id = row.user_id;
  request.max_bytes = options_.max_image_bytes;
  request.retry = options_.pull_retry;
  request.go_on = [&] { return !stop_ && !running.cancelled; };
  request.pause = [&](Duration how_long) { return pause(how_long, running); };
  request.progress = [&](std::uint64_t done, std::uint64_t total) {
    running.done = done;
    running.total = total;
  };
  request.owned = [&](const Blob& blob) {
    return db_.read([&](db::Transaction& tx) -> Result<bool> {
      return store::user_has_blob(tx, row.user_id, blob.digest) ||
             store::loose_blob(tx, row.user_id, name, blob.digest).has_value();
    });
  };
  request.arrived = [&](const Blob& blob) {
    return db_.write([&](db::Transaction& tx) -> Result<void> {
      if (!store::import(tx, row.id)) return not_found({"上传", "import"}, row.id);
      store::hold_loose_blob(tx, row.user_id, name, blob, clock_.now());
      return {};
    });
  };
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    store::start_import(tx, row.id, 0);
    return {};
  }));
  const auto fetcher = TRY(pull::Fetcher::make());
  BlobStore::Lease lease(store_);
  const Contents image = TRY(pull::pull_image(store_, uploads_, lease, *fetcher, rules, request));
  return commit(row, image, running);
}

Result<void> Importer::import_file(const store::ImportRow& row, Running& running) {
  const Path path = TRY(Path::parse(row.file_path, "fileUrl"));
  const Directory root = TRY(files_.root({row.user_id, files::Scope::private_files}));
  const FileInfo info = TRY(root.stat(path));
  running.total = info.size;
  ImportRequest request;
  request.file = TRY(root.open_file(path));
  request.tag = row.tag;
  TRY(remember(row,
               fmt::format("{}-{}-{}-{}", info.device, info.inode, info.size,
                           info.modified.time_since_epoch().count()),
               request, running));
  request.limits = {options_.max_image_bytes, options_.max_entries, options_.max_ratio};
  request.progress = [&](std::uint64_t bytes) {
    running.done = bytes;
    return !stop_ && !running.cancelled;
  };
  auto reservation = TRY(files_.reserve(row.user_id));
  request.reserve = [&](std::uint64_t bytes) {
    return reservation->grow(static_cast<std::int64_t>(bytes), 0);
  };
  TRY(db_.write([&](db::Transaction& tx) -> Result<void> {
    store::start_import(tx, row.id, static_cast<std::int64_t>(running.total.load()));
    return {};
  }));
  BlobStore::Lease lease(store_);
  const Contents image = TRY(import_archive(store_, lease, std::move(request)));
  return commit(row, image, running);
}

Result<void> Importer::commit(const store::ImportRow& row, const Contents& image, const Running& running) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    const Time now = clock_.now();
    if (!store::image(tx, row.image_id)) return not_found({"镜像", "image"}, row.image_id);
    store::add_contents(tx, row.image_id, image, now);
    store::set_tag(tx, row.image_id, row.tag, image.manifest.digest, static_cast<std::int64_t>(image.size),
                   now);
    store::find_unreachable(tx, row.image_id, now);
    store::drop_import_entries(tx, row.id);
    store::set_import_total(tx, row.id, static_cast<std::int64_t>(running.total.load()));
    store::end_import(tx, row.id, std::nullopt, now);
    store::summarize(tx, row.image_id, now);
    return {};
  });
}

void Importer::fail(const store::ImportRow& row, const Error& error) {
  log::warning("image {}: {} could not be imported: {}", row.image_id,
               row.reference.empty() ? row.file_path : row.reference, error.describe(Language::en));
  const Text reason{error.describe(Language::zh), error.describe(Language::en)};
  auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    store::drop_import_entries(tx, row.id);
    store::end_import(tx, row.id, reason, clock_.now());
    store::summarize(tx, row.image_id, clock_.now());
    return {};
  });
  if (!written) log::error("import {}: {}", row.id, written.error().describe(Language::en));
}

void Importer::notify(const std::string& image_id) {
  if (changed_) changed_(image_id);
}

}  // namespace lathe::images
