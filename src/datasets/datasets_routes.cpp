#include "datasets/datasets_service.h"

namespace lathe::datasets {

namespace {

http::Route route(http::Method method, std::string path, std::string_view id, std::string_view summary,
                  int status = 200) {
  return {.method = method,
          .path = std::move(path),
          .access = http::Access::user,
          .id = id,
          .tag = "datasets",
          .summary = summary,
          .success_status = status};
}

Result<Nothing> nothing(Result<void> done) {
  if (!done) return std::move(done).error();
  return Nothing{};
}

}  // namespace

void DatasetsService::add_routes(http::Api& api) {
  using http::Method;
  const std::string all = "/api/v1/datasets", one = all + "/{id}";
  const std::string versions_path = one + "/versions", version_path = versions_path + "/{versionId}";
  api.add<wire::ListQuery, http::Slice<wire::DatasetOut>>(
      route(Method::get, all, "listDatasets", "Datasets, newest first"),
      [this](http::Call& call, wire::ListQuery query) { return list(call, query); });
  api.add<wire::NewDataset, wire::DatasetOut>(
      route(Method::post, all, "createDataset",
            "Register a dataset, with its first version where `path` says one", 201),
      [this](http::Call& call, wire::NewDataset in) { return create(call, in); });
  api.add<wire::ById, wire::DatasetOut>(
      route(Method::get, one, "getDataset", "A dataset"),
      [this](http::Call& call, wire::ById in) { return show(call, in.id); });
  api.add<wire::Patch, wire::DatasetOut>(
      route(Method::patch, one, "changeDataset", "Rename or describe a dataset, or say who may read it"),
      [this](http::Call& call, wire::Patch in) { return change(call, in); });
  api.add<wire::ById, Nothing>(
      route(Method::del, one, "deleteDataset", "Forget a dataset; its files stay", 204),
      [this](http::Call& call, wire::ById in) { return nothing(remove(call, in.id)); });
  api.add<wire::VersionQuery, http::Slice<wire::VersionOut>>(
      route(Method::get, versions_path, "listDatasetVersions", "A dataset's versions, newest first"),
      [this](http::Call& call, wire::VersionQuery query) { return versions(call, query); });
  api.add<wire::NewVersion, wire::VersionOut>(
      route(Method::post, versions_path, "createDatasetVersion", "Add a version", 201),
      [this](http::Call& call, wire::NewVersion in) { return add_version(call, in); });
  api.add<wire::VersionId, wire::VersionOut>(
      route(Method::get, version_path, "getDatasetVersion", "One version of a dataset"),
      [this](http::Call& call, wire::VersionId in) { return version(call, in); });
  api.add<wire::VersionId, Nothing>(
      route(Method::del, version_path, "deleteDatasetVersion", "Forget a version; its files stay", 204),
      [this](http::Call& call, wire::VersionId in) { return nothing(remove_version(call, in)); });
}

}  // namespace lathe::datasets
