#include "files/files_service.h"

#include <algorithm>

#include "base/log.h"
#include "files/text.h"

namespace lathe::files {

namespace {

constexpr std::string_view kStaging = ".staging";
constexpr std::string_view kFolderUpload = "folder-";

Path own_path(std::string_view text) {
  return Path::parse(text, "path").value();
}

Error root_itself(const Path& path) {
  return invalid_field(path.field(), {"不能是根目录", "must not be the root itself"});
}

Entry to_entry(const Path& folder, std::string_view name, const FileInfo& info) {
  Entry out;
  out.name = valid_text(name);
  out.path = folder.is_root() ? out.name : folder.text() + "/" + out.name;
  out.type = files::name(info.type);
  out.size = static_cast<std::int64_t>(info.size);
  out.modifiedAt = info.modified;
  return out;
}

}  // namespace

std::string_view name(FileType type) {
  switch (type) {
    case FileType::file:
      return "file";
    case FileType::directory:
      return "folder";
    case FileType::link:
      return "link";
    case FileType::other:
      break;
  }
  return "other";
}

Result<std::unique_ptr<Files>> Files::open(db::Database& db, accounts::Accounts& accounts,
                                           quotas::Quotas& quotas, accounts::Audit& audit, IdSource& ids,
                                           const Clock& clock, Options options) {
  auto files = std::make_unique<FilesService>(db, accounts, quotas, audit, ids, clock, std::move(options));
  TRY(files->start());
  return std::unique_ptr<Files>(std::move(files));
}

FilesService::FilesService(db::Database& db, accounts::Accounts& accounts, quotas::Quotas& quotas,
                           accounts::Audit& audit, IdSource& ids, const Clock& clock, Options options)
    : db_(db),
      accounts_(accounts),
      audit_(audit),
      ids_(ids),
      clock_(clock),
      options_(std::move(options)),
      usage_(
          db, quotas, clock, options_.usage_interval,
          [this](const std::string& user_id, const std::atomic<bool>& stop) { return count(user_id, stop); }),
      publishing_(*this) {}

Result<void> FilesService::start() {
  users_ = TRY(Directory::create(options_.users_directory, 0711));
  TRY(users_.make_directories(own_path(kStaging), 0700));
  staging_ = TRY(users_.at(own_path(kStaging)));
  TRY(recover_staging());
  resumable_ = TRY(Resumable::open(*this, publishing_, staging_, db_, ids_, clock_, options_));
  std::vector<std::string> ids;
  std::string after;
  while (true) {
    const auto page = TRY(users_.list(Path(), after, 1000));
    for (const auto& entry : page)
      if (entry.info.type == FileType::directory && entry.name != kStaging) ids.push_back(entry.name);
    if (page.size() < 1000) break;
    after = page.back().name;
  }
  accounts_.guard_deletion([this](db::Transaction&, std::string_view user_id) -> Result<void> {
    if (usage_.of(user_id).inodes <= 0) return {};
    return Error{Code::failed_precondition,
                 {"该用户还有文件，请先删除", "the user still has files; delete them first"}};
  });
  return usage_.start(ids);
}

Result<void> FilesService::recover_staging() {
  std::string after;
  while (true) {
    const auto page = TRY(staging_.list(Path(), after, 1000));
    if (page.empty()) return {};
    after = page.back().name;
    for (const auto& entry : page) {
      if (!entry.name.starts_with(kFolderUpload))
        continue;  // a resumable upload's, which its row tells about
      const Path path = TRY(Path::parse(entry.name, "path"));
      const Directory stage = TRY(staging_.at(path));
      auto begun = unfinished(stage);
      if (!begun) log::warning("staging {}: {}", entry.name, begun.error().describe(Language::en));
      if (begun && *begun) {
        const Publication& publication = **begun;
        const Directory target = TRY(root({publication.user_id, scope_named(publication.scope)}));
        TRY(finish(stage, publication, target, options_.owner));
        log::info("finished an upload of {} files for user {}", publication.items.size(),
                  publication.user_id);
      }
      TRY(staging_.remove_tree(path));
    }
  }
}

Result<Directory> FilesService::root(const Root& root) {
  const Path user = TRY(Path::parse(root.user_id, "userId"));
  if (user.depth() != 1 || user == own_path(kStaging))
    return invalid_field("userId", {"不是用户 ID", "is not the id of a user"});
  const Path path = user / own_path(name(root.scope));
  auto there = users_.at(path, Links::refuse);
  if (there || there.error().code != Code::not_found) return there;
  TRY(users_.make_directories(user, 0711, {}, Links::refuse));
  TRY(users_.make_directories(path, root.scope == Scope::private_files ? 0700 : 0755, options_.owner,
                              Links::refuse));
  TRY(users_.sync(user));
  return users_.at(path, Links::refuse);
}

std::string FilesService::host_path(const Root& root) const {
  return options_.users_directory + "/" + root.user_id + "/" + std::string(name(root.scope));
}

Result<quotas::Storage> FilesService::count(const std::string& user_id, const std::atomic<bool>& stop) {
  quotas::Storage total;
  for (const Scope scope : {Scope::private_files, Scope::public_files}) {
    const Path path = TRY(Path::parse(user_id, "userId")) / own_path(name(scope));
    auto top = users_.at(path, Links::refuse);
    if (!top && top.error().code == Code::not_found) continue;
    TRY(TRY(std::move(top)).walk(Path(), [&](std::string_view, const FileInfo& info) {
      total.bytes += static_cast<std::int64_t>(info.size);
      ++total.inodes;
      return !stop.load();
    }));
  }
  if (stop) return Error{Code::cancelled, {"服务器正在停止", "the server is stopping"}};
  return total;
}

Result<Root> FilesService::readable(const http::Identity& caller, const RootQuery& query) {
  const Scope scope = scope_named(query.scope);
  if (scope == Scope::public_files && !query.userId.empty())
    return Root{TRY(accounts_.user(query.userId)).id, scope};
  return writable(caller, query);
}

Result<Root> FilesService::writable(const http::Identity& caller, const RootQuery& query) {
  return Root{TRY(accounts_.acting_for(caller, query.userId, "userId")), scope_named(query.scope)};
}

Result<Entry> FilesService::entry_at(const Directory& root, const Path& path, Links links) {
  return to_entry(path.parent(), path.name(), TRY(root.stat(path, links)));
}

Result<Listing> FilesService::list(const http::Identity& caller, const ListQuery& query) {
  const Path path = TRY(Path::parse(query.path, "path"));
  const Directory top = TRY(root(TRY(readable(caller, query))));
  Listing out;
  out.entry = TRY(entry_at(top, path, Links::follow));
  if (out.entry.type != "folder") return out;
  const std::size_t size = query.pageSize <= 0 ? 100 : static_cast<std::size_t>(query.pageSize);
  auto found = TRY(top.list(path, TRY(decode_cursor(query.cursor)), size + 1));
  if (found.size() > size) {
    found.resize(size);
    out.nextCursor = encode_cursor(found.back().name);
  }
  for (const auto& item : found) out.items.push_back(to_entry(path, item.name, item.info));
  return out;
}

Result<Entry> FilesService::entry(const http::Identity& caller, const PathQuery& query) {
  return entry_at(TRY(root(TRY(readable(caller, query)))), TRY(Path::parse(query.path, "path")),
                  Links::follow);
}

Result<Entry> FilesService::move(http::Call& call, const MoveQuery& query) {
  const Path from = TRY(Path::parse(query.path, "path"));
  const Path to = TRY(Path::parse(query.newPath, "newPath"));
  if (from.is_root()) return root_itself(from);
  if (to.is_root()) return root_itself(to);
  const Root where = TRY(writable(call.caller, query));
  const Directory top = TRY(root(where));
  if (from == to) return entry_at(top, from, Links::refuse);
  if (from.contains(to))
    return invalid_field("newPath", {"不能移动到自身之内", "lies inside the folder itself"});
  TRY(top.stat(from, Links::refuse));
  TRY(top.make_directories(to.parent(), 0755, options_.owner));
  const auto replaced = query.replace ? top.stat(to, Links::refuse) : Result<FileInfo>(FileInfo{});
  TRY(top.rename(from, to, query.replace ? Directory::Replace::files : Directory::Replace::never));
  if (query.replace && replaced) usage_.release(where.user_id, static_cast<std::int64_t>(replaced->size), 1);
  TRY(top.sync(from.parent()));
  TRY(top.sync(to.parent()));
  audit(call, "file.move", where, from, to.text());
  return entry_at(top, to, Links::refuse);
}

Result<void> FilesService::remove(http::Call& call, const PathQuery& query) {
  const Path path = TRY(Path::parse(query.path, "path"));
  if (path.is_root()) return root_itself(path);
  const Root where = TRY(writable(call.caller, query));
  const Directory top = TRY(root(where));
  const FileInfo info = TRY(top.stat(path, Links::refuse));
  TreeSize size{info.size, 1, 1};
  if (info.type == FileType::directory) {
    // The tree leaves the user's sight at once, and whole; its removal may take a while or be cut short by
    // the end of the server, whose next start removes the rest.
    size = TRY(top.measure(path));
    const Path grave = own_path(std::string(kFolderUpload) + ids_.next());
    TRY(staging_.make_directories(grave, 0700));
    TRY(top.rename(path, staging_, grave / own_path("removed"), Directory::Replace::never));
    TRY(top.sync(path.parent()));
    if (auto removed = staging_.remove_tree(grave); !removed)
      log::warning("a removed folder's contents remain: {}", removed.error().describe(Language::en));
  } else {
    TRY(top.remove_file(path));
    TRY(top.sync(path.parent()));
  }
  usage_.release(where.user_id, static_cast<std::int64_t>(size.bytes),
                 static_cast<std::int64_t>(size.inodes));
  audit(call, "file.delete", where, path);
  return {};
}

Result<Entry> FilesService::make_folder(http::Call& call, const PathQuery& query) {
  const Path path = TRY(Path::parse(query.path, "path"));
  if (path.is_root()) return root_itself(path);
  const Root where = TRY(writable(call.caller, query));
  const Directory top = TRY(root(where));
  auto reservation = TRY(usage_.reserve(where.user_id));
  std::int64_t missing = 0;
  for (Path folder = path; !folder.is_root() && !top.exists(folder); folder = folder.parent()) ++missing;
  TRY(reservation->grow(0, missing));
  if (!TRY(top.make_directories(path, 0755, options_.owner)))
    return Error{Code::already_exists,
                 {"文件夹已存在：" + path.text(), "the folder exists already: " + path.text()},
                 {{"path", {"已存在", "exists already"}}}};
  for (Path folder = path; !folder.is_root(); folder = folder.parent()) TRY(top.sync(folder.parent()));
  reservation->commit(0, missing);
  return entry_at(top, path, Links::follow);
}

Result<Fd> FilesService::open_content(const http::Identity& caller, const PathQuery& query) {
  const Path path = TRY(Path::parse(query.path, "path"));
  return TRY(root(TRY(readable(caller, query)))).open_file(path);
}

Result<std::unique_ptr<FolderUpload>> FilesService::begin_upload(std::string_view charged_to) {
  return FolderUpload::begin(*this, publishing_, staging_, std::string(kFolderUpload) + ids_.next(),
                             charged_to, options_.max_parts);
}

void FilesService::audit(http::Call& call, std::string_view action, const Root& root, const Path& path,
                         std::string_view detail) {
  const std::string object = root.user_id + "/" + std::string(name(root.scope)) + "/" + path.text();
  auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    audit_.record(tx, call, action, "file", object, detail);
    return {};
  });
  if (!written) log::warning("audit: {}", written.error().describe(Language::en));
}

}  // namespace lathe::files
