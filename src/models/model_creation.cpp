#include <fmt/format.h>

#include <set>

#include "models/models_service.h"

/// 3.1: everything is looked at before anything is written, and then all of it is written in one transaction.
namespace lathe::models {

namespace {

constexpr std::size_t kQuickLook = 10'000;  // entries counted while the client waits; the import counts all

/// All that is wrong with a request, under the first error's code.
class Problems {
 public:
  void add(Error error) {
    if (!first_) {
      first_ = std::move(error);
      return;
    }
    for (auto& violation : error.violations) first_->violations.push_back(std::move(violation));
  }
  void add(std::string field, Text text) { add(invalid_field(std::move(field), std::move(text))); }
  /// Adds what is wrong; true if nothing is.
  template <class T>
  bool take(const Result<T>& result) {
    if (result.ok()) return true;
    add(result.error());
    return false;
  }
  Result<void> verdict() && {
    if (first_) return std::move(*first_);
    return {};
  }

 private:
  std::optional<Error> first_;
};

std::string element(std::size_t index) {
  return fmt::format("aiApplicationVersionList[{}].", index);
}

}  // namespace

Result<accounts::User> Service::check_users(const http::Identity& caller, const wire::CreateIn& in) {
  const auto& a = in.application;
  accounts::User user;
  const bool named = !a.create_user.empty() || !a.user_name.empty() || in.versions.empty();
  if (named)
    user = TRY(accounts_.acting_for(caller, {.user_id = a.create_user,
                                             .user_name = a.user_name,
                                             .login_user = a.login_user,
                                             .user_id_field = "application.createUser",
                                             .user_name_field = "application.userName"}));
  for (std::size_t i = 0; i < in.versions.size(); ++i) {
    const auto& v = in.versions[i];
    if (v.create_user.empty() && v.user_name.empty() && !(i == 0 && user.id.empty())) continue;
    const std::string id_field = element(i) + "createUser", name_field = element(i) + "userName";
    auto other = TRY(accounts_.acting_for(caller, {.user_id = v.create_user,
                                                   .user_name = v.user_name,
                                                   .login_user = v.login_user,
                                                   .user_id_field = id_field,
                                                   .user_name_field = name_field}));
    if (user.id.empty())
      user = std::move(other);
    else if (other.id != user.id)
      return invalid_field(id_field, {"应与 application.createUser 为同一用户",
                                      "must be the same user as application.createUser"});
  }
  return user;
}

Result<std::string> Service::check_name(const wire::CreateIn& in) {
  std::string name = in.application.name;
  for (const auto& version : in.versions)
    if (name.empty()) name = version.application_name;
  Problems problems;
  if (name.empty()) problems.add("application.name", {"不能为空", "is required"});
  for (std::size_t i = 0; i < in.versions.size(); ++i)
    if (!in.versions[i].application_name.empty() && in.versions[i].application_name != name)
      problems.add(element(i) + "applicationName",
                   {"应与 application.name 相同", "must be the same as application.name"});
  TRY(std::move(problems).verdict());
  return name;
}

Result<void> Service::find_training_output(const http::Identity& caller, const wire::VersionIn& in,
                                           const std::string& at, store::VersionRow& row) {
  const bool tuned = !in.llm_fine_tune_task_id.empty();
  const std::string field = at + (tuned ? "llmFineTuneTaskId" : "trainTaskVersionId");
  row.training_output = tuned ? in.llm_fine_tune_task_id : in.train_task_version_id;
  if (row.training_output.empty())
    return invalid_field(at + "llmFineTuneTaskId",
                         {"source 为 1 时，应填写 llmFineTuneTaskId 或 trainTaskVersionId",
                          "or trainTaskVersionId is required where source is 1"});
  if (!outputs_) return invalid_field(field, {"此平台不提供训练任务", "there are no training jobs here"});
  TrainingOutput output = TRY(outputs_->output_of(row.training_output, caller, field));
  const Path path = TRY(Path::parse(output.path, field));
  const Directory source = TRY(Directory::open(output.root));
  TRY(measure(source, path, row));
  row.source_root = std::move(output.root);
  row.source_path = path.text();
  row.metrics = std::move(output.metrics);
  if (row.image.empty()) row.image = std::move(output.image);
  return {};
}

Result<void> Service::find_image(const http::Identity& caller, const std::string& at,
                                 store::VersionRow& row) {
  if (row.image.empty())
    return invalid_field(at + "image", {"source 为 2 时不能为空", "is required where source is 2"});
  const auto image = TRY(images_.resolve(row.user_id, caller.admin, row.image, at + "image"));
  if (image.kind == images::ImageRef::Kind::oci) {
    row.image_id = image.id;
    row.image_tag = image.tag;
  }
  if (row.source == static_cast<std::int64_t>(Source::image))
    row.size_bytes = static_cast<std::int64_t>(image.size);
  return {};
}

Result<void> Service::find_files(const accounts::User& user, const wire::VersionIn& in, const std::string& at,
                                 store::VersionRow& row) {
  if (in.save_path.empty())
    return invalid_field(at + "savePath", {"source 为 3 时不能为空", "is required where source is 3"});
  if (in.save_type != 2)
    return invalid_field(at + "saveType", {"未配置对象存储，只能为 2（本地存储）",
                                           "no object storage is configured: must be 2 (local storage)"});
  const Path path = TRY(Path::parse(in.save_path, at + "savePath"));
  const Directory source = TRY(files_.root({user.id, files::Scope::private_files}));
  TRY(measure(source, path, row));
  row.source_path = path.text();
  return {};
}

Result<void> Service::measure(const Directory& source, const Path& path, store::VersionRow& row) {
  const FileInfo top = TRY(source.stat(path));
  std::int64_t bytes = static_cast<std::int64_t>(top.size), inodes = 1;
  std::size_t seen = 0;
  if (top.type == FileType::directory) {
    TRY(source.walk(path, [&](std::string_view, const FileInfo& info) {
      bytes += static_cast<std::int64_t>(info.size);
      ++inodes;
      return ++seen < kQuickLook;
    }));
    if (seen >= kQuickLook) return {};  // the import finds out
  } else {
    inodes = 2;
  }
  row.size_bytes = row.stored_bytes = bytes;
  row.stored_inodes = inodes;
  return {};
}

Result<store::VersionRow> Service::prepare(const http::Identity& caller, const accounts::User& user,
                                           const wire::VersionIn& in, const std::string& at) {
  store::VersionRow row;
  row.user_id = user.id;
  row.version = in.version;
  row.description = in.description;
  row.label = in.label;
  row.source = in.source;
  row.image = in.image;
  row.image_type = in.image_type;
  row.framework = in.framework;
  row.framework_style = in.framework_style;
  row.save_type = in.save_type;
  row.save_path = in.save_path;
  row.config_path = in.config_path;
  row.config_save_type = in.config_save_type;
  row.train_task_version_id = in.train_task_version_id;
  row.llm_fine_tune_task_id = in.llm_fine_tune_task_id;
  row.pre_deploy_label = in.pre_deploy_label.empty() ? random_hex(16) : in.pre_deploy_label;
  row.scale = in.scale;
  row.model_structure = in.model_structure;
  row.state = name(State::importing);
  row.created_at = row.updated_at = clock_.now();

  Problems problems;
  const auto source = static_cast<Source>(in.source);
  if (source == Source::training) problems.take(find_training_output(caller, in, at, row));
  if (source == Source::path) problems.take(find_files(user, in, at, row));
  if (source == Source::image || !in.image.empty()) problems.take(find_image(caller, at, row));
  if (!in.config_path.empty()) {
    const auto path = Path::parse(in.config_path, at + "configPath");
    const auto root = files_.root({user.id, files::Scope::private_files});
    if (problems.take(path) && problems.take(root)) problems.take(root->open_file(*path));
  }
  TRY(std::move(problems).verdict());
  return row;
}

Result<std::optional<Service::Created>> Service::made_before(const std::string& request_id) {
  return db_.read([&](db::Transaction& tx) -> Result<std::optional<Created>> {
    auto versions = store::versions_of_request(tx, request_id);
    auto model = store::model(tx, versions.empty() ? request_id : versions[0].model_id);
    if (!model) return std::optional<Created>();
    return std::optional<Created>(Created{std::move(*model), std::move(versions)});
  });
}

Result<Service::Created> Service::create(const http::Call& call, const wire::CreateIn& in) {
  const accounts::User user = TRY(check_users(call.caller, in));
  const std::string name = TRY(check_name(in));
  const std::string request_id = call.new_id();
  if (auto before = TRY(made_before(request_id))) return std::move(*before);

  Problems problems;
  std::set<std::string_view> seen;
  std::vector<store::VersionRow> rows;
  std::int64_t bytes = 0, inodes = 0;
  for (std::size_t i = 0; i < in.versions.size(); ++i) {
    const auto& version = in.versions[i];
    if (!seen.insert(version.version).second)
      problems.add(
          {Code::already_exists,
           {"版本重复", "a version is given twice"},
           {{element(i) + "version", {"重复：" + version.version, "is given twice: " + version.version}}}});
    auto row = prepare(call.caller, user, version, element(i));
    if (!problems.take(row)) continue;
    row->id = i == 0 ? request_id : ids_.next();
    row->request_id = request_id;
    row->hyper_parameters = in.hyper_parameters;
    if (row->source != static_cast<std::int64_t>(Source::image))
      row->folder = fmt::format("{}/{}", user.id, row->id);
    bytes += row->stored_bytes;
    inodes += row->stored_inodes;
    rows.push_back(std::move(*row));
  }
  TRY(std::move(problems).verdict());

  // Held until the rows themselves are counted.
  auto held = TRY(files_.reserve(user.id));
  TRY(held->grow(bytes, inodes));
  Created made = TRY(insert(call, user, name, in, std::move(rows), request_id));
  for (const auto& row : made.versions) importer_->add_import(row.id, row.user_id);
  return made;
}

Result<Service::Created> Service::insert(const http::Call& call, const accounts::User& user,
                                         const std::string& name, const wire::CreateIn& in,
                                         std::vector<store::VersionRow> rows, const std::string& request_id) {
  return db_.write([&](db::Transaction& tx) -> Result<Created> {
    const Time now = clock_.now();
    auto model = store::model_named(tx, user.id, name);
    if (model && rows.empty())
      return Error{Code::already_exists,
                   {"模型名称已存在", "the model's name is taken"},
                   {{"application.name", {"已存在：" + name, "exists already: " + name}}}};
    if (!model) {
      const auto& a = in.application;
      model = store::ModelRow{.id = rows.empty() ? request_id : ids_.next(),
                              .user_id = user.id,
                              .name = name,
                              .name_key = {},
                              .description = a.description,
                              .type = a.type,
                              .developer = a.developer,
                              .hyper_parameters = in.hyper_parameters,
                              .created_at = now,
                              .updated_at = now};
      store::insert(tx, *model);
      audit_.record(tx, call, "model.create", "model", model->id, name);
    } else {
      if (!in.hyper_parameters.empty()) model->hyper_parameters = in.hyper_parameters;
      model->updated_at = now;
      store::update(tx, *model);
    }
    Problems taken;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].model_id = model->id;
      if (store::version_named(tx, model->id, rows[i].version)) {
        taken.add({Code::already_exists,
                   {"模型版本已存在", "the model has this version already"},
                   {{element(i) + "version",
                     {"已存在：" + rows[i].version, "exists already: " + rows[i].version}}}});
        continue;
      }
      store::insert(tx, rows[i]);
      audit_.record(tx, call, "modelVersion.create", "modelVersion", rows[i].id,
                    fmt::format("{}:{}", name, rows[i].version));
    }
    TRY(std::move(taken).verdict());
    return Created{std::move(*model), std::move(rows)};
  });
}

}  // namespace lathe::models
