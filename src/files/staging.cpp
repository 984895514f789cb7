#include "files/staging.h"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <unordered_set>

#include "base/log.h"
#include "files/files_wire.h"

namespace lathe::files {

namespace {

constexpr std::uint64_t kReserveStep = 8ULL << 20;
constexpr std::size_t kSyncSingly = 32;  // files beyond that are made durable together, at the end

}  // namespace

Result<Published> Publishing::publish(const Directory& stage, const Publication& publication,
                                      const Root& root, std::string_view field) {
  const Directory target = TRY(files_.root(root));
  std::lock_guard lock(locks_[std::hash<std::string>{}(root.user_id) % std::size(locks_)]);
  return files::publish(stage, publication, target, files_.owner(), field);
}

Result<std::unique_ptr<FolderUpload>> FolderUpload::begin(Files& files, Publishing& publishing,
                                                          const Directory& stage_root, std::string id,
                                                          std::string_view charged_to,
                                                          std::size_t max_parts) {
  std::unique_ptr<FolderUpload> upload(
      new FolderUpload(files, publishing, stage_root, std::move(id), max_parts));
  const Path own = TRY(Path::parse(upload->id_, "id"));
  TRY(stage_root.make_directories(own, 0700));
  upload->stage_ = TRY(stage_root.at(own));
  upload->charged_to_ = charged_to;
  upload->reservation_ = TRY(files.reserve(charged_to));
  return upload;
}

FolderUpload::~FolderUpload() {
  auto own = Path::parse(id_, "id");
  if (!own) return;
  if (auto removed = stage_root_.remove_tree(*own); !removed)
    log::warning("staged files could not be removed: {}", removed.error().describe(Language::en));
}

Result<void> FolderUpload::begin_file(std::string_view file_name, std::string_view field) {
  if (names_.size() >= max_parts_)
    return Error{Code::too_large,
                 {"一次最多上传 " + std::to_string(max_parts_) + " 个文件",
                  "at most " + std::to_string(max_parts_) + " files in one request"}};
  if (file_name.find('\\') != std::string_view::npos)
    return invalid_field(std::string(field), {"文件名不能含有反斜杠", "has a backslash in its file name"});
  Path name = TRY(Path::parse(file_name, field));
  if (name.is_root() || file_name.ends_with('/'))
    return invalid_field(std::string(field), {"缺少文件名", "has no file name"});
  TRY(reservation_->grow(0, 1));
  current_ = FileWriter(
      TRY(stage_.create_file(TRY(Path::parse(std::to_string(names_.size()), "id")), 0644, files_.owner())),
      0);
  names_.push_back(std::move(name));
  return {};
}

Result<void> FolderUpload::reserve(std::uint64_t bytes) {
  written_ += bytes;
  if (written_ <= reserved_) return {};
  // In steps, for many small pieces; but near the limit exactly what is needed.
  const std::uint64_t step = std::max(written_ - reserved_, kReserveStep);
  if (reservation_->grow(static_cast<std::int64_t>(step), 0)) {
    reserved_ += step;
    return {};
  }
  TRY(reservation_->grow(static_cast<std::int64_t>(written_ - reserved_), 0));
  reserved_ = written_;
  return {};
}

Result<void> FolderUpload::write(std::string_view bytes) {
  TRY(reserve(bytes.size()));
  return current_.write(bytes);
}

Result<void> FolderUpload::end_file() {
  if (names_.size() > kSyncSingly) {
    whole_sync_ = true;
  } else {
    TRY(current_.sync());
  }
  current_.close();
  return {};
}

Result<void> FolderUpload::publish(const Root& root, const Path& folder) {
  Publication publication{root.user_id, std::string(name(root.scope)), {}};
  std::unordered_set<std::string> seen;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const Path target = TRY(Path::parse((folder / names_[i]).text(), names_[i].field()));
    if (!seen.insert(target.text()).second)
      return invalid_field(target.field(),
                           {"重复的文件：" + names_[i].text(), "names a file twice: " + names_[i].text()});
    publication.items.push_back({std::to_string(i), target.text()});
  }
  if (root.user_id != charged_to_) {  // told only after the files: an administrator uploads for somebody
    auto theirs = TRY(files_.reserve(root.user_id));
    TRY(theirs->grow(static_cast<std::int64_t>(written_), static_cast<std::int64_t>(names_.size())));
    reservation_ = std::move(theirs);
  }
  if (whole_sync_) TRY(stage_.sync_filesystem());
  const Published change = TRY(publishing_.publish(stage_, publication, root, "currentPath"));
  reservation_->commit(change.bytes, change.inodes);
  return {};
}

}  // namespace lathe::files
