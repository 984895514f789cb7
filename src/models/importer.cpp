#include "models/importer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/log.h"

namespace lathe::models {

namespace {

constexpr std::string_view kStaging = ".staging";
constexpr auto kPause = std::chrono::seconds(1);  // after a failure that may pass by itself

Path path_of(std::string_view text) {
  return Path::parse(text, "folder").value();  // of the platform's own making
}

Error broken_off_error() {
  return Error{Code::cancelled, {"导入已取消", "the import was cancelled"}};
}

}  // namespace

Result<std::unique_ptr<Importer>> Importer::open(db::Database& db, files::Files& files, const Clock& clock,
                                                 Options options) {
  // Jobs, which are not the server's own user, look into it.
  Directory root = TRY(Directory::create(options.folder, 0755));
  return std::unique_ptr<Importer>(new Importer(db, files, clock, std::move(options), std::move(root)));
}

Importer::~Importer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

Result<void> Importer::start() {
  // What a killed server has left in there is cleared by the imports and removals that begin again.
  TRY(root_.make_directories(path_of(kStaging), 0700));
  auto removals = TRY(db_.read(
      [](db::Transaction& tx) -> Result<std::vector<store::RemovalRow>> { return store::removals(tx); }));
  for (auto& row : removals) add_removal(row.version_id, row.folder);
  for (std::string after;;) {
    const auto rows = TRY(db_.read([&](db::Transaction& tx) -> Result<std::vector<store::VersionRow>> {
      return store::importing(tx, after, 500);
    }));
    if (rows.empty()) break;
    for (const auto& row : rows) add_import(row.id, row.user_id);
    after = rows.back().id;
  }
  for (std::size_t i = 0; i < std::max<std::size_t>(1, options_.workers); ++i)
    workers_.emplace_back([this] { run(); });
  return {};
}

void Importer::add_import(const std::string& version_id, const std::string& user_id) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back({false, version_id, user_id, {}});
  }
  wake_.notify_one();
}

void Importer::add_removal(const std::string& version_id, const std::string& folder) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(waiting_, [&](const Task& task) { return !task.removal && task.version_id == version_id; });
    if (const auto it = active_.find(version_id); it != active_.end()) it->second->cancelled = true;
    waiting_.push_front({true, version_id, {}, folder});
  }
  wake_.notify_one();
}

void Importer::changed(std::string_view version_id) {
  for (const auto& observer : observers_) observer(version_id);
}

std::optional<double> Importer::progress(std::string_view version_id) const {
  const std::lock_guard lock(mutex_);
  const auto it = active_.find(version_id);
  if (it == active_.end()) return std::nullopt;
  const auto total = static_cast<double>(it->second->total.load());
  return total <= 0 ? 0.0 : std::min(1.0, static_cast<double>(it->second->done.load()) / total);
}

// --- whose turn it is --------------------------------------------------------------------------------------

std::optional<std::size_t> Importer::choose() const {
  // Of the users who wait, the one with the fewest imports under way comes first: a thousand versions of one
  // user do not hold up another's.
  std::optional<std::size_t> best;
  std::int64_t fewest = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < waiting_.size() && fewest > 0; ++i) {
    const Task& task = waiting_[i];
    if (active_.contains(task.version_id)) continue;  // a removal waits for the import it has broken off
    if (task.removal) return i;
    const auto under_way = std::count_if(active_.begin(), active_.end(), [&](const auto& entry) {
      return entry.second->user_id == task.user_id;
    });
    if (under_way < fewest) {
      fewest = under_way;
      best = i;
    }
  }
  return best;
}

std::optional<Importer::Task> Importer::take() {
  std::unique_lock lock(mutex_);
  std::optional<std::size_t> index;
  wake_.wait(lock, [&] { return stop_ || (index = choose()).has_value(); });
  if (stop_) return std::nullopt;
  Task task = std::move(waiting_[*index]);
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(*index));
  auto active = std::make_shared<Active>();
  active->user_id = task.user_id;
  active_.emplace(task.version_id, std::move(active));
  return task;
}

void Importer::finish(const Task& task, bool again) {
  std::unique_lock lock(mutex_);
  if (again) wake_.wait_for(lock, kPause, [this] { return stop_.load(); });
  const bool cancelled = active_.find(task.version_id)->second->cancelled;
  active_.erase(task.version_id);
  if (again && !cancelled) waiting_.push_back(task);
  lock.unlock();
  wake_.notify_all();
}

void Importer::run() {
  while (auto task = take()) {
    std::shared_ptr<Active> active;
    {
      const std::lock_guard lock(mutex_);
      active = active_.find(task->version_id)->second;
    }
    bool again = true;
    try {
      again = task->removal ? remove(*task) : import(*task, *active);
    } catch (const std::exception& bug) {
      log::error("model version {}: {}", task->version_id, bug.what());
    }
    finish(*task, again);
  }
}

// --- one import --------------------------------------------------------------------------------------------

bool Importer::broken_off(const Active& active) const {
  return stop_ || active.cancelled;
}

bool Importer::import(const Task& task, Active& active) {
  auto found = db_.read([&](db::Transaction& tx) -> Result<std::optional<store::VersionRow>> {
    return store::version(tx, task.version_id);
  });
  if (!found) return true;
  if (!*found || (*found)->state != name(State::importing)) return false;
  store::VersionRow row = std::move(**found);

  const auto imported = row.folder.empty() ? Result<void>() : import_files(row, active);
  if (broken_off(active)) return false;  // the next start takes it up, or its removal clears it away
  if (imported.ok()) {
    row.state = name(State::ready);
  } else {
    if (imported.error().code == Code::unavailable) return true;
    const Error& why = imported.error();
    row.state = name(State::failed);
    row.failure_zh = why.describe(Language::zh);
    row.failure_en = why.describe(Language::en);
    row.stored_bytes = row.stored_inodes = 0;
    // What was copied must be gone before it is no longer charged.
    if (!clear(row.id, row.folder).ok()) return true;
    log::warning("model version {} could not be imported: {}", row.id, row.failure_en);
  }
  row.ended_at = row.updated_at = clock_.now();
  const auto recorded = record(row);
  if (!recorded) {
    log::error("model version {}: {}", row.id, recorded.error().message.en);
    return true;
  }
  changed(row.id);
  return false;
}

Result<bool> Importer::record(const store::VersionRow& row) {
  return db_.write([&](db::Transaction& tx) -> Result<bool> {
    auto now = store::version(tx, row.id);
    if (!now) return false;
    // What people may have changed meanwhile stays as they have it.
    store::VersionRow merged = row;
    merged.description = now->description;
    merged.label = now->label;
    store::update(tx, merged);
    return true;
  });
}

Result<void> Importer::import_files(store::VersionRow& row, Active& active) {
  const Path target = path_of(row.folder);
  const Path staging = path_of(fmt::format("{}/{}", kStaging, row.id));
  // There already: it was renamed, and the server killed before it could say so.
  if (!root_.exists(target)) {
    TRY(remove_folder(staging));
    TRY(copy_files(row, staging, active));
    TRY(copy_config(row, staging, active));
    if (broken_off(active)) return broken_off_error();
    TRY(root_.sync_filesystem());
    TRY(root_.make_directories(target.parent(), 0755));
    TRY(root_.rename(staging, target, Directory::Replace::never));
    TRY(root_.sync(target.parent()));
    TRY(root_.sync());
  }
  return inspect(row);
}

Result<void> Importer::copy_files(store::VersionRow& row, const Path& staging, Active& active) {
  const Directory source = row.source_root.empty()
                               ? TRY(files_.root({row.user_id, files::Scope::private_files}))
                               : TRY(Directory::open(row.source_root));
  const Path from = TRY(Path::parse(row.source_path, row.source_root.empty() ? "savePath" : "source"));
  const FileInfo top = TRY(source.stat(from));

  TreeSize size{0, 0, 1};
  if (top.type == FileType::directory) {
    TRY(source.walk(from, [&](std::string_view, const FileInfo& info) {
      size.bytes += info.size;
      size.files += info.type == FileType::file;
      ++size.inodes;
      return !broken_off(active);
    }));
  } else {
    size = {top.size, 1, 2};
  }
  if (broken_off(active)) return broken_off_error();
  TRY(charge(row, size));
  active.total = static_cast<std::int64_t>(size.bytes);

  // The walk does not follow links, the copy does: a link's file may be any size, so the charge grows with
  // it.
  std::optional<Error> refused;
  std::unique_ptr<files::Reservation> more;
  std::uint64_t allowed = size.bytes;
  std::uint64_t allowed_inodes = size.inodes;
  const Directory::CopyOptions options{
      .owner = files_.owner(), .progress = [&](const TreeSize& done) {
        active.done = static_cast<std::int64_t>(done.bytes);
        if (broken_off(active)) return false;
        if (done.bytes <= allowed && done.inodes <= allowed_inodes) return true;
        if (!more) {
          auto held = files_.reserve(row.user_id);
          if (!held) {
            refused = held.error();
            return false;
          }
          more = std::move(*held);
        }
        const std::uint64_t bytes = done.bytes > allowed ? done.bytes - allowed + (64U << 20) : 0;
        const std::uint64_t inodes = done.inodes > allowed_inodes ? done.inodes - allowed_inodes + 100 : 0;
        const auto grown = more->grow(static_cast<std::int64_t>(bytes), static_cast<std::int64_t>(inodes));
        if (!grown) {
          refused = grown.error();
          return false;
        }
        allowed += bytes;
        allowed_inodes += inodes;
        return true;
      }};
  Path to = staging;
  if (top.type != FileType::directory) {
    TRY(root_.make_directories(staging, 0755, files_.owner()));
    to = staging / TRY(Path::parse(from.name(), from.field()));
  }
  auto copied = source.copy_tree(from, root_, to, options);
  if (refused) return *refused;
  if (!copied) return copied.error();
  // Held until the row says it.
  row.size_bytes = static_cast<std::int64_t>(copied->bytes);
  row.stored_bytes = static_cast<std::int64_t>(copied->bytes);
  row.stored_inodes = static_cast<std::int64_t>(copied->inodes);
  TRY(record(row));
  return {};
}

Result<void> Importer::charge(store::VersionRow& row, const TreeSize& size) {
  const auto bytes = static_cast<std::int64_t>(size.bytes), inodes = static_cast<std::int64_t>(size.inodes);
  auto held = TRY(files_.reserve(row.user_id));
  TRY(held->grow(std::max<std::int64_t>(0, bytes - row.stored_bytes),
                 std::max<std::int64_t>(0, inodes - row.stored_inodes)));
  row.size_bytes = row.stored_bytes = bytes;
  row.stored_inodes = inodes;
  TRY(record(row));
  return {};
}

Result<void> Importer::copy_config(const store::VersionRow& row, const Path& staging, Active& active) {
  if (row.config_path.empty()) return {};
  const Directory source = TRY(files_.root({row.user_id, files::Scope::private_files}));
  const Path from = TRY(Path::parse(row.config_path, "configPath"));
  const Path to = staging / TRY(Path::parse(from.name(), "configPath"));
  if (root_.exists(to)) return {};
  const Directory::CopyOptions options{.owner = files_.owner(),
                                       .progress = [&](const TreeSize&) { return !broken_off(active); }};
  TRY(source.copy_tree(from, root_, to, options));
  return {};
}

Result<void> Importer::inspect(store::VersionRow& row) {
  const Directory folder = TRY(root_.at(path_of(row.folder)));
  FolderReport report = TRY(read_model_folder(folder));
  if (row.scale.empty()) row.scale = human_scale(report.details.parameterCount.value_or(0));
  if (row.model_structure.empty())
    row.model_structure =
        report.details.architecture.empty() ? report.details.modelType : report.details.architecture;
  row.details = std::move(report.details);
  row.config_text = std::move(report.config_text);
  row.deploy_text = std::move(report.deploy_text);
  return {};
}

// --- removals ----------------------------------------------------------------------------------------------

/// Like remove_tree, but ends with the server: on some disks a file takes milliseconds.
Result<void> Importer::remove_folder(const Path& path) {
  while (true) {
    auto page = root_.list(path, "", 100);
    if (!page.ok() && page.error().code == Code::not_found) return {};
    if (!page.ok()) return page.error();
    if (page->empty()) return root_.remove_tree(path);
    for (const auto& entry : *page) {
      if (stop_) return broken_off_error();
      // A job may have given it a name that no request could.
      const auto below = Path::parse(entry.name, "folder");
      if (!below.ok()) return root_.remove_tree(path);
      TRY(root_.remove_tree(path / *below));
    }
  }
}

Result<void> Importer::clear(const std::string& version_id, const std::string& folder) {
  TRY(remove_folder(path_of(fmt::format("{}/{}", kStaging, version_id))));
  if (!folder.empty()) TRY(remove_folder(path_of(folder)));
  return {};
}

bool Importer::remove(const Task& task) {
  if (auto cleared = clear(task.version_id, task.folder); !cleared.ok()) {
    if (!stop_)
      log::error("the files of model version {} could not be removed: {}", task.version_id,
                 cleared.error().message.en);
    return true;
  }
  const auto recorded = db_.write([&](db::Transaction& tx) -> Result<void> {
    store::delete_removal(tx, task.version_id);
    return {};
  });
  if (!recorded.ok()) return true;
  changed(task.version_id);
  return false;
}

}  // namespace lathe::models
