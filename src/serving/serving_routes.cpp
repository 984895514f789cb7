#include <fcntl.h>
#include <sys/stat.h>

#include <boost/json.hpp>

#include "serving/serving_service.h"

namespace lathe::serving {

using http::Access;
using http::Call;
using http::Method;
using http::Route;

namespace {

constexpr std::string_view kTag = "services";

Route documented(std::string_view section, std::string path, std::string_view id, std::string_view summary) {
  return {.method = Method::post,
          .path = std::move(path),
          .access = Access::user,
          .id = id,
          .tag = kTag,
          .summary = summary,
          .envelope = &http::kModelEnvelope,
          .section = section};
}

Route own(Method method, std::string path, std::string_view id, std::string_view summary) {
  return {.method = method,
          .path = "/api/v1/deployments" + path,
          .access = Access::user,
          .id = id,
          .tag = kTag,
          .summary = summary};
}

struct LogQuery {
  std::string id, replica;
};
void fields(Fields& f, LogQuery& q) {
  f.field("id", q.id, {.required = true, .form = Form::id});
  f.field("replica", q.replica, {.doc = "Id of the replica; absent: the newest", .form = Form::id});
}

Result<LogQuery> log_query(const http::Request& request) {
  boost::json::object given;
  for (const auto& [name, value] : request.query) given[name] = value;
  given["id"] = request.capture("id");
  return json::read<LogQuery>(given);
}

}  // namespace

void Service::add_routes(http::Api& api) {
  api.add<wire::CreateRequest, wire::Created>(
      documented("8.1", "/model/modelServer/createModelInferenceServer", "createModelInferenceServer",
                 "Create and start a service"),
      [this](Call& call, const wire::CreateRequest& request) { return create(call, request, true); });
  api.add<wire::CreateRequest, wire::Created>(
      documented("8.2", "/model/modelServer/createModelServer", "createModelServer",
                 "Save a service without starting it"),
      [this](Call& call, const wire::CreateRequest& request) { return create(call, request, false); });
  api.add<wire::ListRequest, http::Page<wire::ServerAnswer>>(
      documented("8.3", "/model/modelServer/findModelServerPageList", "findModelServerPageList",
                 "List services"),
      [this](Call& call, const wire::ListRequest& request) { return list(call, request); });
  api.add<wire::IdRequest, wire::ServerAnswer>(
      documented("8.4", "/model/modelServer/findModelServerById", "findModelServerById", "Show a service"),
      [this](Call& call, const wire::IdRequest& request) { return show(call, request.id); });
  api.add<wire::IdRequest, wire::VersionAnswer>(
      documented("8.5", "/model/modelServerVersion/findModelServerVersionById", "findModelServerVersionById",
                 "Show a version of a service"),
      [this](Call& call, const wire::IdRequest& request) { return show_version(call, request.id); });

  api.add<wire::IdRequest, wire::ServerAnswer>(
      own(Method::get, "/{id}", "getDeployment", "Show a service"),
      [this](Call& call, const wire::IdRequest& request) { return show(call, request.id); });
  api.add<wire::IdRequest, wire::ServerAnswer>(
      own(Method::post, "/{id}/start", "startDeployment", "Start a service"),
      [this](Call& call, const wire::IdRequest& request) { return set_started(call, request.id, true); });
  api.add<wire::IdRequest, wire::ServerAnswer>(
      own(Method::post, "/{id}/stop", "stopDeployment", "Stop a service"),
      [this](Call& call, const wire::IdRequest& request) { return set_started(call, request.id, false); });
  api.add<wire::ChangeRequest, wire::ServerAnswer>(
      own(Method::patch, "/{id}", "changeDeployment",
          "Change a service's traffic shares, replica bounds and scaling"),
      [this](Call& call, const wire::ChangeRequest& request) { return change(call, request); });
  api.add<wire::IdRequest, Nothing>(
      own(Method::del, "/{id}", "deleteDeployment", "Stop and delete a service"),
      [this](Call& call, const wire::IdRequest& request) { return remove(call, request.id); });
  api.add<wire::IdRequest, wire::Replicas>(
      own(Method::get, "/{id}/replicas", "listReplicas", "List a service's replicas"),
      [this](Call& call, const wire::IdRequest& request) -> Result<wire::Replicas> {
        auto server = TRY(show(call, request.id));
        wire::Replicas out;
        for (auto& version : server.modelServerVersions)
          for (auto& replica : version.replicas) out.items.push_back(std::move(replica));
        return out;
      });
  api.add<wire::IdRequest, wire::MetricsAnswer>(
      own(Method::get, "/{id}/metrics", "getDeploymentMetrics",
          "What the gateway has counted, and what the autoscaler goes by"),
      [this](Call& call, const wire::IdRequest& request) { return metrics(call, request.id); });
  api.add<wire::EventQuery, http::Slice<wire::EventAnswer>>(
      own(Method::get, "/{id}/events", "listDeploymentEvents",
          "What happened to a service, newest first: scaling decisions, rollouts, failed replicas, changes"),
      [this](Call& call, const wire::EventQuery& query) { return events(call, query); });
  api.add_raw(
      own(Method::get, "/{id}/logs", "getReplicaLog", "The log of a replica"),
      {.answer_type = "text/plain", .parameters = json::schema<LogQuery>()},
      [this](Call& call) -> Result<http::Response> {
        const auto query = TRY(log_query(call.request));
        const auto path = TRY(log_path(call, query.id, query.replica));
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        http::Response response = http::Response::text(200, "");
        struct stat info {};
        if (fd < 0) return response;
        auto owned = http::own_fd(fd);
        if (fstat(fd, &info) == 0)
          response.body = http::FileBody{std::move(owned), 0, static_cast<std::uint64_t>(info.st_size)};
        return response;
      });
}

}  // namespace lathe::serving
