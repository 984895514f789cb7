#include "jobs/spec_builder.h"

#include <fmt/format.h>

#include <algorithm>

#include "jobs/admission.h"
#include "jobs/capacity.h"
#include "jobs/places.h"

namespace lathe::jobs {

namespace {

algorithms::Kind algorithm_kind(JobKind kind) {
  switch (kind) {
    case JobKind::fine_tune:
      return algorithms::Kind::fine_tune;
    case JobKind::pretrain:
      return algorithms::Kind::pretrain;
    case JobKind::modelling:
      return algorithms::Kind::modelling;
    case JobKind::evaluation:
      break;
  }
  return algorithms::Kind::evaluation;
}

std::vector<algorithms::NamedValue> named_values(const std::vector<Placeholder>& places) {
  std::vector<algorithms::NamedValue> out;
  for (const auto& each : places) out.push_back({each.name, each.value});
  return out;
}

class Builder {
 public:
  Builder(const Platform& platform, const http::Identity& caller, Draft draft, Problems problems)
      : platform_(platform), draft_(std::move(draft)), problems_(std::move(problems)), admin_(caller.admin) {}

  Result<NewJob> build(const http::Identity& caller, std::string id) {
    const accounts::User user = TRY(
        platform_.accounts.acting_for(caller, {.user_id = draft_.user_id, .user_name = draft_.user_name}));
    user_ = user.id;
    job_.id = std::move(id);
    job_.user_id = user.id;
    job_.user_name = user.user_name;
    job_.description = draft_.description;
    job_.name = draft_.name.empty()
                    ? fmt::format("{}-{}", name(draft_.kind), job_.id.substr(job_.id.size() - 6))
                    : draft_.name;
    copy_plain_parts();
    resolve_group();
    resolve_image();
    resolve_directories();
    resolve_model(caller);
    resolve_input();
    read_profile();
    resolve_command();
    TRY(std::move(problems_).result());
    if (auto fits = check_it_can_ever_run(); !fits.ok()) return about("resource", std::move(fits).error());
    job_.created_at = job_.queued_at = platform_.clock.now();
    return NewJob{std::move(job_), std::move(group_)};
  }

 private:
  const FieldNames& names() const { return *draft_.names; }
  JobSpec& spec() { return job_.spec; }

  void copy_plain_parts() {
    auto& s = spec();
    s.kind = draft_.kind;
    s.framework = draft_.framework;
    s.command = draft_.command;
    s.algorithm_id = draft_.algorithm_id;
    s.environment = draft_.environment;
    s.groups = draft_.groups;
    s.nodes = draft_.nodes;
    s.priority = draft_.priority;
    s.urgent = draft_.urgent;
    s.rdma = draft_.rdma;
    s.rdma_resource = draft_.rdma_resource;
    s.time_limit_s = draft_.time_limit_s;
  }

  void resolve_group() {
    group_ = problems_.take(
        platform_.quotas.resolve_group(user_, {draft_.group_id, draft_.group_key, draft_.group_name,
                                               names().group_id, names().group_key, names().group_name}));
    spec().group_id = group_.id;
  }

  void resolve_image() {
    std::string text = draft_.image;
    if (text.empty() && !draft_.algorithm_id.empty())
      if (const auto* algorithm = platform_.algorithms.find(draft_.algorithm_id)) text = algorithm->image;
    auto image = platform_.images.resolve(user_, admin_, text, names().image);
    if (!image.ok()) return problems_.add(std::move(image).error());
    spec().image = image->tag.empty() ? image->name : image->name + ":" + image->tag;
    const bool host = image->kind == images::ImageRef::Kind::host;
    if (!host) spec().image_id = image->id;
    const auto* entry = platform_.engines.find(group_.engine);
    if (!host && entry && !entry->engine->capabilities().runs_images)
      problems_.add(
          std::string(names().image),
          {fmt::format("资源组 {} 的运行引擎 {} 只能使用 host 镜像：没有配置 Docker 或 Podman", group_.name,
                       group_.engine),
           fmt::format("must be host: the engine {} of resource group {} runs no other images, since "
                       "no Docker or Podman is configured",
                       group_.engine, group_.name)});
  }

  /// A directory under the user's own root; `must_exist` for what the job reads.
  JobDirectory own(const std::string& text, std::string_view field, bool must_exist) {
    auto path = Path::parse(text, field);
    if (!path.ok()) {
      problems_.add(std::move(path).error());
      return {};
    }
    JobDirectory out{JobDirectory::Source::user_root, user_, path->text()};
    auto root = platform_.files.root({user_, files::Scope::private_files});
    if (!root.ok()) {
      problems_.add(std::move(root).error());
      return {};
    }
    auto info = root->stat(*path);
    if (info.ok() && info->type != FileType::directory && !(must_exist && field == names().input_dir))
      problems_.add(std::string(field), {"不是目录", "is not a directory"});
    if (info.ok() || (!must_exist && info.error().code == Code::not_found)) return out;
    if (info.error().code == Code::not_found) {
      problems_.add(std::string(field), {"目录不存在：" + text, "there is no such directory: " + text});
    } else {
      problems_.add(std::string(field), info.error().message);
    }
    return out;
  }

  void resolve_directories() {
    if (!draft_.work_dir.empty()) spec().work = own(draft_.work_dir, names().work, true);
    if (!draft_.model_dir.empty() && draft_.model_version_id.empty())
      spec().model = own(draft_.model_dir, names().model_dir, true);
    const auto default_place = [&](std::string_view leaf) {
      return JobDirectory{JobDirectory::Source::user_root, user_,
                          default_directory(job_.name, job_.id, leaf)};
    };
    spec().output =
        draft_.output_dir.empty() ? default_place("output") : own(draft_.output_dir, names().output, false);
    if (draft_.kind == JobKind::evaluation) return;
    spec().checkpoint = draft_.checkpoint_dir.empty() ? default_place("checkpoint")
                                                      : own(draft_.checkpoint_dir, names().checkpoint, false);
  }

  void resolve_model(const http::Identity& caller) {
    if (draft_.model_version_id.empty()) return;
    const http::Identity reader{user_, job_.user_name, caller.admin};
    auto version = platform_.models.version(draft_.model_version_id, reader, names().model_version);
    if (!version.ok()) return problems_.add(std::move(version).error());
    const std::string field(names().model_version);
    if (version->state == models::State::failed)
      return problems_.add(field, {"该模型版本导入失败", "the import of this model version has failed"});
    if (version->source == models::Source::image)
      return problems_.add(
          field, {"该模型版本只有镜像，没有模型文件", "this model version is an image without files"});
    spec().model = {JobDirectory::Source::model_version, version->id, ""};
    spec().model_version_id = version->id;
  }

  void resolve_input() {
    if (!draft_.input_is_dataset) {
      if (!draft_.input_dir.empty()) spec().input = own(draft_.input_dir, names().input_dir, true);
      return;
    }
    if (draft_.dataset_version_id.empty() && draft_.dataset_id.empty() && draft_.dataset_name.empty()) return;
    auto dataset =
        platform_.datasets.resolve(user_, admin_,
                                   {draft_.dataset_version_id, draft_.dataset_id, draft_.dataset_name,
                                    names().dataset_version, names().dataset_id, names().dataset_name});
    if (!dataset.ok()) return problems_.add(std::move(dataset).error());
    const bool shared = dataset->root.scope == files::Scope::public_files;
    spec().input = {shared ? JobDirectory::Source::public_root : JobDirectory::Source::user_root,
                    dataset->root.user_id, dataset->path.text()};
    spec().dataset_version_id = dataset->version_id;
  }

  void read_profile() {
    if (!draft_.profile_path.empty()) {
      const auto profile = load_profile();
      if (profile.ok()) {
        add_profile(draft_, *profile, problems_);
      } else {
        problems_.add("profilePath", {"读取 config.json 失败：" + profile.error().describe(Language::zh),
                                      "cannot be used: " + profile.error().describe(Language::en)});
      }
    }
    spec().strategy = draft_.strategy;
    spec().common_parameters = std::move(draft_.common_parameters);
    spec().tuning_parameters = std::move(draft_.tuning_parameters);
  }

  Result<Profile> load_profile() {
    const Path path = TRY(Path::parse(draft_.profile_path, "profilePath"));
    const Directory root = TRY(platform_.files.root({user_, files::Scope::private_files}));
    const std::string text = TRY(root.read_file(path));
    return json::parse_as<Profile>(text);
  }

  void resolve_command() {
    if (!draft_.algorithm_id.empty()) return resolve_algorithm();
    if (!spec().command.empty()) problems_.take(prepare(spec(), names().command));
  }

  void resolve_algorithm() {
    const auto found =
        platform_.algorithms.get(draft_.algorithm_id, algorithm_kind(draft_.kind), "algorithmId");
    if (!found.ok()) return problems_.add(found.error());
    const algorithms::Algorithm& algorithm = **found;
    if (!algorithm.strategies.empty() && !spec().strategy.empty() &&
        std::find(algorithm.strategies.begin(), algorithm.strategies.end(), spec().strategy) ==
            algorithm.strategies.end())
      problems_.add("fineTuneStrategy",
                    {fmt::format("该算法只支持：{}", fmt::join(algorithm.strategies, ", ")),
                     fmt::format("must be one of: {}", fmt::join(algorithm.strategies, ", "))});
    std::vector<algorithms::NamedValue> given;
    for (const auto* list : {&spec().common_parameters, &spec().tuning_parameters})
      for (const auto& each : *list) given.push_back({each.name, each.value});
    const auto settled = algorithms::settle(algorithm, given, "hyperParameters");
    if (!settled.ok()) return problems_.add(settled.error());
    keep_defaults(algorithm, *settled, given.size());
    const auto places = named_values(place_names(spec()));
    auto argv = algorithms::make_argv(algorithm, places, *settled);
    if (!argv.ok()) return problems_.add(std::move(argv).error());
    spec().argv = std::move(argv).value();
    auto environment = algorithms::make_env(algorithm, places, *settled);
    if (!environment.ok()) return problems_.add(std::move(environment).error());
    // The user's own variables come after, and win.
    std::vector<EnvironmentVariable> all;
    for (auto& each : *environment) all.push_back({std::move(each.name), std::move(each.value)});
    for (auto& each : spec().environment) all.push_back(std::move(each));
    spec().environment = std::move(all);
  }

  /// Notes the algorithm's defaults as parameters of the job, so that a retry next year runs the same.
  void keep_defaults(const algorithms::Algorithm& algorithm,
                     const std::vector<algorithms::NamedValue>& settled, std::size_t given) {
    for (std::size_t i = given; i < settled.size(); ++i) {
      const auto known = std::find_if(algorithm.parameters.begin(), algorithm.parameters.end(),
                                      [&](const auto& each) { return each.name == settled[i].name; });
      const bool tuning = known != algorithm.parameters.end() && known->group == "tuning";
      (tuning ? spec().tuning_parameters : spec().common_parameters)
          .push_back({settled[i].name, settled[i].value, {}});
    }
  }

  Result<void> check_it_can_ever_run() {
    const auto* entry = platform_.engines.find(group_.engine);
    if (!entry)
      return Error{
          Code::unsatisfiable,
          {fmt::format("资源组 {} 的运行引擎 {} 未启用", group_.name, group_.engine),
           fmt::format("the engine {} of resource group {} is not set up", group_.engine, group_.name)}};
    const bool shares = std::any_of(spec().groups.begin(), spec().groups.end(), [](const RankGroup& ranks) {
      return ranks.each.gpu.share == GpuShare::vgpu && ranks.each.gpu.count > 0;
    });
    if (shares && !entry->engine->capabilities().gpu_shares)
      return Error{Code::unsatisfiable,
                   {"这里没有 CUDA MPS 守护进程，无法限制 GPU 份额：gpuShare 应为 none（整卡）或 mig",
                    "no CUDA MPS daemon runs here to hold a job to a share of a GPU: gpuShare must be none "
                    "(whole devices) or mig"}};
    admission::Group group;
    group.capacity = capacity_of(group_, platform_.quotas.machine(), entry->gpus);
    group.gpus = engines::GpuPool(entry->gpus);
    TRY(admission::check_ever_fits(group, spec().groups));
    const quotas::Quota quota = TRY(platform_.quotas.quota_of(user_));
    return quotas::refuse_never(
        quotas::check(quota, {}, compute_of(total_of(spec().groups)), platform_.clock.now()));
  }

  const Platform& platform_;
  Draft draft_;
  Problems problems_;
  bool admin_;
  std::string user_;
  Job job_;
  quotas::ResourceGroup group_;
};

}  // namespace

Result<NewJob> build_job(const Platform& platform, const http::Identity& caller, std::string id, Draft draft,
                         Problems problems) {
  return Builder(platform, caller, std::move(draft), std::move(problems)).build(caller, std::move(id));
}

}  // namespace lathe::jobs
