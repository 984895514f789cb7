#include "files/publication.h"

#include <set>

#include "base/json.h"
#include "base/log.h"

namespace lathe::files {

namespace {

constexpr std::string_view kJournal = "journal";
constexpr std::size_t kSyncSingly = 64;  // beyond, one sync of the file system is cheaper

Path own_path(std::string_view name) {
  return Path::parse(name, "path").value();
}

/// The work of one publication, and what undoes it.
class Publisher {
 public:
  Publisher(const Directory& stage, const Directory& root, std::optional<Owner> owner, std::string_view field)
      : stage_(stage), root_(root), owner_(owner), field_(field) {}

  Result<void> check(const Publication& publication) {
    for (const auto& item : publication.items) {
      const Path target = TRY(Path::parse(item.target, field_));
      auto there = root_.stat(target, Links::follow);
      if (there && there->type == FileType::directory)
        return Error{Code::failed_precondition,
                     {"目标是文件夹：" + target.text(), "the target is a folder: " + target.text()},
                     {{field_, {"与已有文件夹同名", "is the name of a folder"}}}};
      if (!there && there.error().code != Code::not_found) return there.error();
    }
    return {};
  }

  Result<void> move(const Publication::Item& item, std::size_t number) {
    const Path staged = own_path(item.staged);
    const Path target = TRY(Path::parse(item.target, field_));
    TRY(make_parents(target));
    Step step{staged, target, {}, false};
    if (auto old = root_.stat(target, Links::refuse)) {
      step.kept = own_path("old-" + std::to_string(number));
      step.replaced = root_.link(target, stage_, step.kept).ok();
      change_.bytes -= static_cast<std::int64_t>(old->size);
      --change_.inodes;
    }
    const FileInfo info = TRY(stage_.stat(staged));
    TRY(stage_.rename(staged, root_, target, Directory::Replace::files));
    steps_.push_back(std::move(step));
    change_.bytes += static_cast<std::int64_t>(info.size);
    ++change_.inodes;
    return {};
  }

  Result<void> sync() {
    std::set<std::string> folders;
    for (const Step& step : steps_) {
      Path folder = step.target;
      do {
        folder = folder.parent();
      } while (folders.insert(folder.text()).second && !folder.is_root());
      if (folders.size() > kSyncSingly) return root_.sync_filesystem();
    }
    for (const std::string& folder : folders) TRY(root_.sync(own_path(folder)));
    return {};
  }

  void undo() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      auto back = root_.rename(step->target, stage_, step->staged, Directory::Replace::files);
      if (back && step->replaced)
        back = stage_.rename(step->kept, root_, step->target, Directory::Replace::files);
      if (!back) log::warning("an upload could not be taken back: {}", back.error().describe(Language::en));
    }
    // Folders are removed only while they are empty: others may use them by now.
    for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) {
      auto entries = root_.list(*folder, "", 1);
      if (entries && entries->empty() && !root_.remove_tree(*folder)) break;
    }
  }

  Published change() const { return change_; }

 private:
  struct Step {
    Path staged, target, kept;
    bool replaced;
  };

  Result<void> make_parents(const Path& target) {
    const Path folder = target.parent();
    if (folder.is_root() || !seen_.insert(folder.text()).second) return {};
    TRY(make_parents(folder));
    if (TRY(root_.make_directories(folder, 0755, owner_))) {
      made_.push_back(folder);
      ++change_.inodes;
    }
    return {};
  }

  const Directory& stage_;
  const Directory& root_;
  const std::optional<Owner> owner_;
  const std::string field_;
  std::vector<Step> steps_;
  std::vector<Path> made_;
  std::set<std::string> seen_;
  Published change_;
};

}  // namespace

Result<Published> publish(const Directory& stage, const Publication& publication, const Directory& root,
                          std::optional<Owner> owner, std::string_view field) {
  Publisher publisher(stage, root, owner, field);
  TRY(publisher.check(publication));
  const bool journalled = publication.items.size() > 1;  // a single rename is atomic by itself
  if (journalled) TRY(stage.write_file(own_path(kJournal), json::write(publication), 0600));
  Result<void> moved;
  for (std::size_t i = 0; i < publication.items.size() && moved; ++i)
    moved = publisher.move(publication.items[i], i);
  if (moved) moved = publisher.sync();
  if (!moved) {
    publisher.undo();
    if (journalled) TRY(stage.remove_file(own_path(kJournal)));
    return moved.error();
  }
  return publisher.change();
}

Result<std::optional<Publication>> unfinished(const Directory& stage) {
  auto text = stage.read_file(own_path(kJournal), std::size_t{1} << 30);
  if (!text && text.error().code == Code::not_found) return std::optional<Publication>();
  return std::optional(TRY(json::parse_as<Publication>(TRY(std::move(text)))));
}

Result<void> finish(const Directory& stage, const Publication& publication, const Directory& root,
                    std::optional<Owner> owner) {
  Publisher publisher(stage, root, owner, "path");
  for (std::size_t i = 0; i < publication.items.size(); ++i) {
    if (!stage.exists(own_path(publication.items[i].staged))) continue;
    auto moved = publisher.move(publication.items[i], i);
    if (!moved) log::warning("an upload could not be finished: {}", moved.error().describe(Language::en));
  }
  return publisher.sync();
}

}  // namespace lathe::files
