#include "datasets/datasets_service.h"

#include "base/log.h"

namespace lathe::datasets {

namespace {

Error no_such_dataset(std::string_view id) {
  return not_found({"数据集", "dataset"}, id);
}
Error no_such_version(std::string_view id) {
  return not_found({"数据集版本", "dataset version"}, id);
}
Error name_taken(std::string_view name) {
  const std::string text(name);
  return {Code::already_exists,
          {"数据集名称已存在：" + text, "there is a dataset of this name already: " + text},
          {{"name", {"已存在", "is taken"}}}};
}

/// The error, naming the field of the request that led to it.
Error in_field(Error error, std::string_view field) {
  error.violations = {{std::string(field), {"不可用", "cannot be used"}}};
  return error;
}

wire::VersionOut to_out(const store::VersionRow& row) {
  wire::VersionOut out{row.id, row.version, row.description, row.scope,     row.path, row.state,
                       {},     {},          kLocalStorage,   row.created_at};
  if (row.state == "ready") out.size = row.size, out.fileCount = row.file_count;
  return out;
}

}  // namespace

Result<std::unique_ptr<Datasets>> Datasets::open(db::Database& db, accounts::Accounts& accounts,
                                                 files::Files& files, accounts::Audit& audit, IdSource& ids,
                                                 const Clock& clock) {
  auto datasets = std::make_unique<DatasetsService>(db, accounts, files, audit, ids, clock);
  TRY(datasets->start());
  return std::unique_ptr<Datasets>(std::move(datasets));
}

DatasetsService::~DatasetsService() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<void> DatasetsService::start() {
  for (auto& id : TRY(db_.read(
           [](db::Transaction& tx) -> Result<std::vector<std::string>> { return store::unmeasured(tx); })))
    queue_.push_back(std::move(id));
  accounts_.guard_deletion([](db::Transaction& tx, std::string_view user_id) -> Result<void> {
    if (!store::has_datasets(tx, user_id)) return {};
    return Error{Code::failed_precondition,
                 {"该用户还有数据集，请先删除", "the user still has datasets; delete them first"}};
  });
  thread_ = std::thread([this] { run(); });
  return {};
}

Result<store::DatasetRow> DatasetsService::readable(db::Transaction& tx, std::string_view user_id, bool admin,
                                                    std::string_view id) {
  auto row = store::dataset(tx, id);
  if (!row || (row->user_id != user_id && !admin && !row->is_public)) return no_such_dataset(id);
  return *std::move(row);
}

Result<store::DatasetRow> DatasetsService::own(db::Transaction& tx, const http::Identity& caller,
                                               std::string_view id) {
  auto row = TRY(readable(tx, caller.user_id, caller.admin, id));
  if (row.user_id != caller.user_id && !caller.admin)
    return Error{Code::permission_denied, {"只能修改自己的数据集", "only its owner may change a dataset"}};
  return row;
}

Result<Path> DatasetsService::existing(const std::string& user_id, const wire::Source& source) {
  Path path = TRY(Path::parse(source.path, "path"));
  TRY(TRY(files_.root({user_id, files::scope_named(source.scope)})).stat(path));
  return path;
}

Result<store::VersionRow> DatasetsService::insert_version(db::Transaction& tx,
                                                          const store::DatasetRow& dataset,
                                                          const wire::Source& source, const Path& path,
                                                          std::string id) {
  store::VersionRow row;
  row.id = std::move(id);
  row.dataset_id = dataset.id;
  row.version = source.version;
  row.description = source.description;
  row.scope = source.scope;
  row.path = path.text();
  row.created_at = clock_.now();
  if (row.version.empty()) {
    std::int64_t number = store::count_versions(tx, dataset.id) + 1;
    while (store::version_named(tx, dataset.id, std::to_string(number))) ++number;
    row.version = std::to_string(number);
  } else if (store::version_named(tx, dataset.id, row.version)) {
    return Error{Code::already_exists,
                 {"版本已存在：" + row.version, "there is this version already: " + row.version},
                 {{"version", {"已存在", "is taken"}}}};
  }
  store::add_version(tx, row);
  return row;
}

Result<wire::DatasetOut> DatasetsService::create(http::Call& call, const wire::NewDataset& in) {
  store::DatasetRow row;
  row.user_id = TRY(accounts_.acting_for(call.caller, in.userId, "userId"));
  row.id = call.new_id();
  row.name = in.name;
  row.description = in.description;
  row.is_public = in.isPublic;
  row.created_at = row.updated_at = clock_.now();
  std::optional<Path> path;
  if (!in.path.empty()) path = TRY(existing(row.user_id, in));
  std::string to_measure;
  auto out = TRY(db_.write([&](db::Transaction& tx) -> Result<wire::DatasetOut> {
    if (auto before = store::dataset(tx, row.id)) return describe(tx, *before);  // the same Idempotency-Key
    if (store::own_named(tx, row.user_id, row.name)) return name_taken(row.name);
    store::add(tx, row);
    wire::Source source = in;
    source.description.clear();  // which is the dataset's
    if (path) to_measure = TRY(insert_version(tx, row, source, *path, ids_.next())).id;
    audit_.record(tx, call, "dataset.create", "dataset", row.id, row.name);
    return describe(tx, row);
  }));
  if (!to_measure.empty()) measure_soon(to_measure);
  return out;
}

wire::DatasetOut DatasetsService::describe(db::Transaction& tx, const store::DatasetRow& row) {
  wire::DatasetOut out{row.id, row.user_id, row.name,       row.description, row.is_public,
                       0,      {},          row.created_at, row.updated_at};
  out.versionCount = store::count_versions(tx, row.id);
  const auto latest = store::versions(tx, row.id, "", 1);
  if (!latest.empty()) out.latestVersion = to_out(latest.front());
  return out;
}

Result<http::Slice<wire::DatasetOut>> DatasetsService::list(http::Call& call, const wire::ListQuery& query) {
  store::Filter filter;
  filter.user_id = TRY(accounts_.listing_for(call.caller, query.userId, "userId"));
  filter.name = query.name;
  filter.before = query.cursor;
  filter.limit = query.limit();
  return db_.read([&](db::Transaction& tx) -> Result<http::Slice<wire::DatasetOut>> {
    std::vector<wire::DatasetOut> found;
    for (const auto& row : store::list(tx, filter)) found.push_back(describe(tx, row));
    return http::slice(query, std::move(found), [](const wire::DatasetOut& last) { return last.id; });
  });
}

Result<wire::DatasetOut> DatasetsService::show(http::Call& call, const std::string& id) {
  return db_.read([&](db::Transaction& tx) -> Result<wire::DatasetOut> {
    return describe(tx, TRY(readable(tx, call.caller.user_id, call.caller.admin, id)));
  });
}

Result<wire::DatasetOut> DatasetsService::change(http::Call& call, const wire::Patch& patch) {
  return db_.write([&](db::Transaction& tx) -> Result<wire::DatasetOut> {
    auto row = TRY(own(tx, call.caller, patch.id));
    if (patch.name && *patch.name != row.name) {
      if (store::own_named(tx, row.user_id, *patch.name)) return name_taken(*patch.name);
      row.name = *patch.name;
    }
    if (patch.description) row.description = *patch.description;
    if (patch.isPublic) row.is_public = *patch.isPublic;
    row.updated_at = clock_.now();
    store::update(tx, row);
    audit_.record(tx, call, "dataset.change", "dataset", row.id);
    return describe(tx, row);
  });
}

Result<void> DatasetsService::check_guards(db::Transaction& tx, std::string_view dataset_id,
                                           std::string_view version_id) {
  for (const auto& guard : guards_) TRY(guard(tx, dataset_id, version_id));
  return {};
}

Result<void> DatasetsService::remove(http::Call& call, const std::string& id) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    const auto row = TRY(own(tx, call.caller, id));
    TRY(check_guards(tx, id, ""));
    store::remove(tx, id);
    audit_.record(tx, call, "dataset.delete", "dataset", id, row.name);
    return {};
  });
}

Result<http::Slice<wire::VersionOut>> DatasetsService::versions(http::Call& call,
                                                                const wire::VersionQuery& query) {
  return db_.read([&](db::Transaction& tx) -> Result<http::Slice<wire::VersionOut>> {
    TRY(readable(tx, call.caller.user_id, call.caller.admin, query.id));
    std::vector<wire::VersionOut> found;
    for (const auto& row : store::versions(tx, query.id, query.cursor, query.limit()))
      found.push_back(to_out(row));
    return http::slice(query, std::move(found), [](const wire::VersionOut& last) { return last.id; });
  });
}

Result<wire::VersionOut> DatasetsService::add_version(http::Call& call, const wire::NewVersion& in) {
  const std::string id = call.new_id();
  const auto dataset = TRY(db_.read(
      [&](db::Transaction& tx) -> Result<store::DatasetRow> { return own(tx, call.caller, in.id); }));
  const Path path = TRY(existing(dataset.user_id, in));
  auto row = TRY(db_.write([&](db::Transaction& tx) -> Result<store::VersionRow> {
    if (auto before = store::version(tx, id)) return *before;  // the same Idempotency-Key
    auto owner = TRY(own(tx, call.caller, in.id));
    auto added = TRY(insert_version(tx, owner, in, path, id));
    owner.updated_at = clock_.now();
    store::update(tx, owner);
    audit_.record(tx, call, "dataset.add_version", "dataset", in.id, added.version);
    return added;
  }));
  measure_soon(row.id);
  return to_out(row);
}

Result<wire::VersionOut> DatasetsService::version(http::Call& call, const wire::VersionId& which) {
  return db_.read([&](db::Transaction& tx) -> Result<wire::VersionOut> {
    TRY(readable(tx, call.caller.user_id, call.caller.admin, which.id));
    const auto row = store::version(tx, which.versionId);
    if (!row || row->dataset_id != which.id) return no_such_version(which.versionId);
    return to_out(*row);
  });
}

Result<void> DatasetsService::remove_version(http::Call& call, const wire::VersionId& which) {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    TRY(own(tx, call.caller, which.id));
    const auto row = store::version(tx, which.versionId);
    if (!row || row->dataset_id != which.id) return no_such_version(which.versionId);
    TRY(check_guards(tx, which.id, which.versionId));
    store::remove_version(tx, which.versionId);
    audit_.record(tx, call, "dataset.delete_version", "dataset", which.id, row->version);
    return {};
  });
}

Result<store::VersionRow> DatasetsService::find(db::Transaction& tx, std::string_view user_id, bool admin,
                                                const DatasetName& name, store::DatasetRow& dataset) {
  if (!name.version_id.empty()) {
    const auto row = store::version(tx, name.version_id);
    auto of = row ? readable(tx, user_id, admin, row->dataset_id)
                  : Result<store::DatasetRow>(no_such_version(name.version_id));
    if (!of) return in_field(no_such_version(name.version_id), name.version_field);
    dataset = *std::move(of);
    if (!name.id.empty() && name.id != dataset.id)
      return invalid_field(std::string(name.id_field),
                           {"不是该版本所属的数据集", "is not the dataset of that version"});
    return *row;
  }
  const bool by_id = !name.id.empty();
  const std::string_view field = by_id ? name.id_field : name.name_field;
  if (by_id) {
    auto row = readable(tx, user_id, admin, name.id);
    if (!row) return in_field(row.error(), field);
    dataset = *std::move(row);
  } else {
    auto row = name.name.empty() ? std::nullopt : store::named(tx, user_id, name.name);
    if (name.name.empty())
      return invalid_field(std::string(name.version_field),
                           {"必填：请指明数据集或其版本", "is required: name a dataset or a version of one"});
    if (!row) return in_field(no_such_dataset(name.name), field);
    dataset = *std::move(row);
  }
  auto latest = store::versions(tx, dataset.id, "", 1);
  if (latest.empty())
    return in_field(
        {Code::failed_precondition,
         {"数据集还没有版本：" + dataset.name, "the dataset has no version yet: " + dataset.name}},
        field);
  return std::move(latest.front());
}

Result<DatasetRef> DatasetsService::resolve(std::string_view user_id, bool admin, const DatasetName& name) {
  store::DatasetRow dataset;
  const auto version = TRY(db_.read([&](db::Transaction& tx) -> Result<store::VersionRow> {
    return find(tx, user_id, admin, name, dataset);
  }));
  const std::string_view field = !name.version_id.empty() ? name.version_field
                                 : !name.id.empty()       ? name.id_field
                                                          : name.name_field;
  DatasetRef ref;
  ref.dataset_id = dataset.id;
  ref.dataset_name = dataset.name;
  ref.version_id = version.id;
  ref.version = version.version;
  ref.root = {dataset.user_id, files::scope_named(version.scope)};
  ref.path = TRY(Path::parse(version.path, field));
  TRY(TRY(files_.root(ref.root)).stat(ref.path));
  ref.host_path = files_.host_path(ref.root) + (ref.path.is_root() ? "" : "/" + ref.path.text());
  return ref;
}

void DatasetsService::measure_soon(std::string version_id) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(version_id));
  }
  wake_.notify_one();
}

void DatasetsService::measure(const std::string& version_id) {
  std::string user_id;
  auto row = db_.read([&](db::Transaction& tx) -> Result<store::VersionRow> {
    auto found = store::version(tx, version_id);
    if (!found) return no_such_version(version_id);
    if (auto dataset = store::dataset(tx, found->dataset_id)) user_id = dataset->user_id;
    return *std::move(found);
  });
  if (!row || user_id.empty()) return;  // deleted meanwhile
  auto measured = [&]() -> Result<TreeSize> {
    const Directory root = TRY(files_.root({user_id, files::scope_named(row->scope)}));
    const Path path = TRY(Path::parse(row->path, "path"));
    const FileInfo top = TRY(root.stat(path));
    TreeSize size{top.size, top.type == FileType::file ? 1U : 0U, 1};
    if (top.type != FileType::directory) return size;
    TRY(root.walk(path, [&](std::string_view, const FileInfo& info) {
      size.bytes += info.size;
      size.files += info.type == FileType::file;
      return !stop_.load();
    }));
    return size;
  }();
  if (stop_) return;  // the next start measures it
  const TreeSize size = measured ? *measured : TreeSize{};
  auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    store::set_measured(tx, version_id, measured ? "ready" : "missing", static_cast<std::int64_t>(size.bytes),
                        static_cast<std::int64_t>(size.files));
    return {};
  });
  if (!written) log::warning("dataset version {}: {}", version_id, written.error().describe(Language::en));
}

void DatasetsService::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    const std::string id = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    measure(id);
    lock.lock();
  }
}

}  // namespace lathe::datasets
