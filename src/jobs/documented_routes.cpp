#include "jobs/documented_routes.h"

#include <map>

#include "jobs/present.h"

namespace lathe::jobs {

namespace {

using http::Access;
using http::Call;
using http::Method;
using http::Page;

http::Route route(Method method, std::string path, std::string_view id, std::string_view summary,
                  std::string_view section) {
  http::Route out{.method = method,
                  .path = std::move(path),
                  .access = Access::user,
                  .id = id,
                  .tag = "jobs",
                  .summary = summary,
                  .envelope = &http::kKernelEnvelope};
  out.section = section;
  return out;
}

/// A request was stored as it was written; one that cannot be read back is a bug.
template <class T>
Result<T> read_back(const std::string& text) {
  auto out = json::parse_as<T>(text);
  if (!out.ok())
    return Error{
        Code::internal,
        {"存储的任务无法读取", "the stored job cannot be read: " + out.error().describe(Language::en)}};
  return out;
}

std::vector<JobKind> tuning_kinds(const TaskListRequest& request) {
  if (!request.isPretrain) return {JobKind::fine_tune, JobKind::pretrain};
  return {*request.isPretrain == 1 ? JobKind::pretrain : JobKind::fine_tune};
}

Result<Page<TaskRow>> list_rows(Service& service, const Call& call, const TaskListRequest& request,
                                std::vector<JobKind> kinds) {
  const auto listing = TRY(service.list(call.caller, request, std::move(kinds)));
  const Time now = service.platform().clock.now();
  std::vector<TaskRow> rows;
  for (const auto& job : listing.jobs) rows.push_back(row_of(job, now, call.request.language));
  return request.page.page(listing.total, std::move(rows));
}

Result<TaskDetail> detail(Service& service, const Call& call, const std::string& id, bool tuning) {
  const auto [job, request] = TRY(service.visible_request(call.caller, id, "taskId"));
  const bool is_tuning = job.spec.kind == JobKind::fine_tune || job.spec.kind == JobKind::pretrain;
  if (is_tuning != tuning || job.spec.kind == JobKind::evaluation) return not_found({"任务", "task"}, id);
  TaskDetail out;
  out.id = out.taskId = job.id;
  out.request = TRY(read_back<CreateTask>(request));
  out.status = status_of(job, service.platform().clock.now(), call.request.language);
  return out;
}

/// What the tasks of a page have produced, and which of it is in the model registry.
class Managed {
 public:
  explicit Managed(Service& service) : service_(service) {}

  Result<std::vector<ManagedTaskRow>> rows(const std::vector<Job>& jobs, Language language) {
    TRY(load(jobs));
    TRY(find_registered(jobs));
    std::vector<ManagedTaskRow> out;
    const Time now = service_.platform().clock.now();
    for (const auto& job : jobs) out.push_back(row(job, now, language));
    return out;
  }

 private:
  Result<void> load(const std::vector<Job>& jobs) {
    return service_.platform().db.read([&](db::Transaction& tx) -> Result<void> {
      for (const auto& job : jobs) {
        if (auto spec = store::find_spec(tx, job.id)) specs_[job.id] = std::move(*spec);
        checkpoints_[job.id] = store::checkpoints_of(tx, job.id);
      }
      return {};
    });
  }

  Result<void> find_registered(const std::vector<Job>& jobs) {
    std::vector<std::string> ids;
    std::map<std::string, std::string> job_of;
    for (const auto& job : jobs) {
      job_of[job.id] = job.id;
      for (const auto& each : checkpoints_[job.id]) job_of[each.id] = job.id;
    }
    for (const auto& [id, job] : job_of) ids.push_back(id);
    for (const auto& version : TRY(service_.platform().models.versions_of_outputs(ids)))
      models_[job_of[undashed(version.training_output)]].push_back(
          {version.model_id, version.model_name, version.version, version.id});
    return {};
  }

  ManagedTaskRow row(const Job& job, Time now, Language language) {
    const JobSpec& spec = specs_[job.id];
    ManagedTaskRow out;
    out.task = row_of(job, now, language);
    out.fineTuneStrategy = spec.strategy;
    out.outputDir = "/" + spec.output.path;
    out.checkPointDir = "/" + spec.checkpoint.path;
    for (const auto& each : checkpoints_[job.id]) {
      if (each.kind == "model") {
        out.model = checkpoint_row_of(each, spec);
      } else {
        out.checkpoints.push_back(checkpoint_row_of(each, spec));
      }
    }
    out.models = models_[job.id];
    out.registered = !out.models.empty();
    return out;
  }

  Service& service_;
  std::map<std::string, JobSpec> specs_;
  std::map<std::string, std::vector<store::Checkpoint>> checkpoints_;
  std::map<std::string, std::vector<RegisteredModel>> models_;
};

void add_tuning(http::Api& api, Service& service) {
  api.add<CreateTaskRequest, CreatedTask>(
      route(Method::post, "/kernel/fineTune/createLlmFineTuneTask", "createFineTuneTask",
            "Create a tuning or pre-training task", "4.1, 5.1"),
      [&service](Call& call, CreateTaskRequest in) -> Result<CreatedTask> {
        CreateTask task = std::move(in).task();
        const JobKind kind = task.isPretrain == 1 ? JobKind::pretrain : JobKind::fine_tune;
        const std::string id = TRY(service.create(call, std::move(task), kind));
        return CreatedTask{id, id};
      });
  api.add<TaskListRequest, Page<TaskRow>>(
      route(Method::post, "/kernel/fineTune/listLlmFineTuneTask", "listFineTuneTasks",
            "Tuning and pre-training tasks, newest first", "4.2, 5.2"),
      [&service](Call& call, const TaskListRequest& in) -> Result<Page<TaskRow>> {
        return list_rows(service, call, in, tuning_kinds(in));
      });
  api.add<TaskIdRequest, TaskDetail>(route(Method::post, "/kernel/fineTune/queryLlmFineTuneTaskDetail",
                                           "getFineTuneTask", "One tuning or pre-training task", "4.3, 5.3"),
                                     [&service](Call& call, const TaskIdRequest& in) -> Result<TaskDetail> {
                                       return detail(service, call, in.taskId, true);
                                     });
  api.add<TaskListRequest, Page<ManagedTaskRow>>(
      route(Method::post, "/kernel/fineTuneManage/listFineTuneTaskManage", "listFineTuneTaskModels",
            "Tuning tasks with what each has produced", "4.4, 5.4"),
      [&service](Call& call, const TaskListRequest& in) -> Result<Page<ManagedTaskRow>> {
        auto listing = TRY(service.list(call.caller, in, tuning_kinds(in)));
        auto rows = TRY(Managed(service).rows(listing.jobs, call.request.language));
        return in.page.page(listing.total, std::move(rows));
      });
}

void add_modelling(http::Api& api, Service& service) {
  api.add<CreateTaskRequest, CreatedTask>(
      route(Method::post, "/kernel/trainOperator/createTask", "createTask", "Create a modelling task", "6.1"),
      [&service](Call& call, CreateTaskRequest in) -> Result<CreatedTask> {
        const std::string id = TRY(service.create(call, std::move(in).task(), JobKind::modelling));
        return CreatedTask{id, id};
      });
  api.add<TaskListRequest, Page<TaskRow>>(
      route(Method::post, "/kernel/trainOperator/listTask", "listTasks", "Modelling tasks, newest first",
            "6.2"),
      [&service](Call& call, const TaskListRequest& in) -> Result<Page<TaskRow>> {
        return list_rows(service, call, in, {JobKind::modelling});
      });
  api.add<TaskIdRequest, TaskDetail>(
      route(Method::post, "/kernel/trainOperator/queryTaskInfo", "getTask", "One modelling task", "6.3"),
      [&service](Call& call, const TaskIdRequest& in) -> Result<TaskDetail> {
        return detail(service, call, in.taskId, false);
      });
}

void add_evaluation(http::Api& api, Service& service) {
  const auto evaluation = [](http::Route route) {
    route.envelope = &http::kEvaluationEnvelope;
    return route;
  };
  http::Route create = evaluation(route(Method::post, "/model/evaluation/task/create", "createEvaluation",
                                        "Create an evaluation task", "7.1"));
  create.success_message = "创建模型评估任务成功";
  api.add<CreateEvaluation, Nothing>(std::move(create),
                                     [&service](Call& call, CreateEvaluation in) -> Result<Nothing> {
                                       TRY(service.create(call, std::move(in)));
                                       return Nothing{};
                                     });
  api.add<TaskListRequest, Page<EvaluationRow>>(
      evaluation(route(Method::post, "/model/evaluation/task/page", "listEvaluations",
                       "Evaluation tasks, newest first", "7.2")),
      [&service](Call& call, const TaskListRequest& in) -> Result<Page<EvaluationRow>> {
        const auto listing = TRY(service.list(call.caller, in, {JobKind::evaluation}));
        std::vector<EvaluationRow> rows;
        for (const auto& job : listing.jobs)
          rows.push_back(evaluation_row_of(job, service.platform().clock.now()));
        return in.page.page(listing.total, std::move(rows));
      });
  api.add<TaskIdRequest, EvaluationDetail>(
      evaluation(route(Method::get, "/api/model/evaluation/task/detail/{taskId}", "getEvaluation",
                       "One evaluation task", "7.3")),
      [&service](Call& call, const TaskIdRequest& in) -> Result<EvaluationDetail> {
        const auto [job, request] = TRY(service.visible_request(call.caller, in.taskId, "taskId"));
        if (job.spec.kind != JobKind::evaluation) return not_found({"任务", "task"}, in.taskId);
        EvaluationDetail out;
        out.id = dashed(job.id);
        out.request = TRY(read_back<CreateEvaluation>(request));
        out.status = status_of(job, service.platform().clock.now(), call.request.language);
        return out;
      });
}

}  // namespace

void add_documented_routes(http::Api& api, Service& service) {
  add_tuning(api, service);
  add_modelling(api, service);
  add_evaluation(api, service);
}

void Service::add_routes(http::Api& api) {
  add_documented_routes(api, *this);
  add_own_routes(api, *this);
}

}  // namespace lathe::jobs
