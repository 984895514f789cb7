#include "models/models_service.h"

namespace lathe::models {

namespace {

using http::Access;
using http::Call;
using http::Method;

const store::Summary* summary_of(const Service::Listed& listed, const std::string& model_id) {
  const auto it = listed.summaries.find(model_id);
  return it == listed.summaries.end() ? nullptr : &it->second;
}

/// Documented answers also say whether their owner is an administrator; a page has few owners.
class Owners {
 public:
  explicit Owners(Service& service) : service_(service) {}
  std::int64_t login_user(const std::string& user_id) {
    const auto it = known_.find(user_id);
    if (it != known_.end()) return it->second;
    return known_.emplace(user_id, service_.login_user(user_id)).first->second;
  }

 private:
  Service& service_;
  std::map<std::string, std::int64_t> known_;
};

wire::ApplicationOut application(Service& service, Owners& owners, const Service::Listed& listed,
                                 const store::ModelRow& model) {
  auto out = service.application(model, summary_of(listed, model.id));
  out.loginUser = owners.login_user(model.user_id);
  return out;
}

wire::VersionOut version(Service& service, Owners& owners, const store::ModelRow& model,
                         const store::VersionRow& row, Language language) {
  auto out = service.documented(model, row, language);
  out.loginUser = owners.login_user(row.user_id);
  return out;
}

/// Documented answers name the field whose id is wrong.
template <class T>
Result<T> found_by(std::string_view field, Result<T> found) {
  if (found.ok() || found.error().code != Code::not_found) return found;
  return about(field, found.error());
}

Result<wire::CreateOut> create(Service& service, Call& call, const wire::CreateIn& in) {
  const auto made = TRY(service.create(call, in));
  const auto listed = TRY(service.show(call.caller, made.model.id));
  Owners owners(service);
  wire::CreateOut out;
  out.application = application(service, owners, listed, made.model);
  for (const auto& row : made.versions)
    out.versions.push_back(version(service, owners, made.model, row, call.request.language));
  out.hyper_parameters =
      made.versions.empty() ? made.model.hyper_parameters : made.versions[0].hyper_parameters;
  return out;
}

Result<http::Page<wire::ApplicationOut>> list(Service& service, Call& call, const wire::ListIn& in) {
  const auto listed = TRY(service.list(call.caller, in));
  Owners owners(service);
  std::vector<wire::ApplicationOut> rows;
  for (const auto& model : listed.models) rows.push_back(application(service, owners, listed, model));
  return in.page(listed.total, std::move(rows));
}

Result<wire::VersionDetail> detail(Service& service, Call& call, const wire::VersionRef& in) {
  const auto found = TRY(found_by("aiApplicationVersionId", service.show_version(call.caller, in.id)));
  const auto listed = TRY(service.show(call.caller, found.model.id));
  Owners owners(service);
  wire::VersionDetail out;
  static_cast<wire::VersionOut&>(out) =
      version(service, owners, found.model, found.versions[0], call.request.language);
  out.application = application(service, owners, listed, found.model);
  return out;
}

void add_documented_routes(http::Api& api, Service& service) {
  api.add<wire::CreateIn, wire::CreateOut>(
      {.method = Method::post,
       .path = "/model/aiApplication/createAiApplication",
       .access = Access::user,
       .id = "createAiApplication",
       .tag = "models",
       .summary = "Create a model, or add versions to it; the files are imported in the background",
       .envelope = &http::kModelEnvelope,
       .section = "3.1",
       .max_body = 8 << 20},
      [&service](Call& call, const wire::CreateIn& in) { return create(service, call, in); });
  api.add<wire::ListIn, http::Page<wire::ApplicationOut>>(
      {.method = Method::post,
       .path = "/model/aiApplication/getAiApplicationList",
       .access = Access::user,
       .id = "getAiApplicationList",
       .tag = "models",
       .summary = "A page of models, newest first",
       .envelope = &http::kModelEnvelope,
       .section = "3.2"},
      [&service](Call& call, const wire::ListIn& in) { return list(service, call, in); });
  api.add<wire::ApplicationRef, wire::ApplicationOut>(
      {.method = Method::get,
       .path = "/model/aiApplication/getAiApplicationDetail",
       .access = Access::user,
       .id = "getAiApplicationDetail",
       .tag = "models",
       .summary = "Show a model",
       .envelope = &http::kModelEnvelope,
       .section = "3.3"},
      [&service](Call& call, const wire::ApplicationRef& in) -> Result<wire::ApplicationOut> {
        const auto listed = TRY(found_by("aiApplicationId", service.show(call.caller, in.id)));
        Owners owners(service);
        return application(service, owners, listed, listed.models[0]);
      });
  api.add<wire::ApplicationRef, std::vector<wire::VersionOut>>(
      {.method = Method::get,
       .path = "/model/aiApplicationVersion/getAiApplicationVersionList",
       .access = Access::user,
       .id = "getAiApplicationVersionList",
       .tag = "models",
       .summary = "All versions of a model, newest first",
       .envelope = &http::kModelEnvelope,
       .section = "3.4"},
      [&service](Call& call, const wire::ApplicationRef& in) -> Result<std::vector<wire::VersionOut>> {
        const auto found = TRY(found_by("aiApplicationId", service.versions(call.caller, in.id)));
        Owners owners(service);
        std::vector<wire::VersionOut> out;
        for (const auto& row : found.versions)
          out.push_back(version(service, owners, found.model, row, call.request.language));
        return out;
      });
  api.add<wire::VersionRef, wire::VersionDetail>(
      {.method = Method::get,
       .path = "/model/aiApplicationVersion/getAiApplicationVersionDetail",
       .access = Access::user,
       .id = "getAiApplicationVersionDetail",
       .tag = "models",
       .summary = "Show a model version, with its model",
       .envelope = &http::kModelEnvelope,
       .section = "3.5"},
      [&service](Call& call, const wire::VersionRef& in) { return detail(service, call, in); });
}

Result<wire::ModelOut> shown(Service& service, Call& call, std::string_view id) {
  const auto listed = TRY(service.show(call.caller, id));
  return service.shown(listed.models[0], summary_of(listed, listed.models[0].id));
}

Result<wire::ModelVersionOut> shown_version(Service& service, Call& call, std::string_view id) {
  const auto found = TRY(service.show_version(call.caller, id));
  return service.shown(found.model, found.versions[0], call.request.language);
}

void add_model_routes(http::Api& api, Service& service) {
  const std::string list = "/api/v1/models", one = list + "/{id}";
  api.add<wire::ModelsIn, http::Slice<wire::ModelOut>>(
      {.method = Method::get,
       .path = list,
       .access = Access::user,
       .id = "listModels",
       .tag = "models",
       .summary = "Models, newest first"},
      [&service](Call& call, const wire::ModelsIn& in) -> Result<http::Slice<wire::ModelOut>> {
        const auto listed = TRY(service.slice(call.caller, in));
        std::vector<wire::ModelOut> found;
        for (const auto& model : listed.models)
          found.push_back(service.shown(model, summary_of(listed, model.id)));
        return http::slice(in, std::move(found), [](const wire::ModelOut& last) { return last.id; });
      });
  api.add<wire::ById, wire::ModelOut>(
      {.method = Method::get,
       .path = one,
       .access = Access::user,
       .id = "getModel",
       .tag = "models",
       .summary = "Show a model"},
      [&service](Call& call, const wire::ById& in) { return shown(service, call, in.id); });
  api.add<wire::ModelPatch, wire::ModelOut>(
      {.method = Method::patch,
       .path = one,
       .access = Access::user,
       .id = "updateModel",
       .tag = "models",
       .summary = "Change a model's name, description or template of hyper-parameters"},
      [&service](Call& call, const wire::ModelPatch& in) -> Result<wire::ModelOut> {
        TRY(service.patch(call, in));
        return shown(service, call, in.id);
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = one,
                                .access = Access::user,
                                .id = "deleteModel",
                                .tag = "models",
                                .summary = "Delete a model with all its versions, unless one is in use",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.remove(call, in.id));
                                 return Nothing{};
                               });
  api.add<wire::VersionsIn, http::Slice<wire::ModelVersionOut>>(
      {.method = Method::get,
       .path = one + "/versions",
       .access = Access::user,
       .id = "listModelVersions",
       .tag = "models",
       .summary = "A model's versions, newest first"},
      [&service](Call& call, const wire::VersionsIn& in) -> Result<http::Slice<wire::ModelVersionOut>> {
        const auto found = TRY(service.versions(call.caller, in));
        std::vector<wire::ModelVersionOut> out;
        for (const auto& row : found.versions)
          out.push_back(service.shown(found.model, row, call.request.language));
        return http::slice(in, std::move(out), [](const wire::ModelVersionOut& last) { return last.id; });
      });
}

void add_version_routes(http::Api& api, Service& service) {
  const std::string one = "/api/v1/model-versions/{id}";
  api.add<wire::ById, wire::ModelVersionOut>(
      {.method = Method::get,
       .path = one,
       .access = Access::user,
       .id = "getModelVersion",
       .tag = "models",
       .summary = "Show a model version"},
      [&service](Call& call, const wire::ById& in) { return shown_version(service, call, in.id); });
  api.add<wire::VersionPatch, wire::ModelVersionOut>(
      {.method = Method::patch,
       .path = one,
       .access = Access::user,
       .id = "updateModelVersion",
       .tag = "models",
       .summary = "Change a model version's description or label"},
      [&service](Call& call, const wire::VersionPatch& in) -> Result<wire::ModelVersionOut> {
        TRY(service.patch_version(call, in));
        return shown_version(service, call, in.id);
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = one,
                                .access = Access::user,
                                .id = "deleteModelVersion",
                                .tag = "models",
                                .summary = "Delete a model version and its files, unless it is in use",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.remove_version(call, in.id));
                                 return Nothing{};
                               });
}

}  // namespace

void Service::add_routes(http::Api& api) {
  add_documented_routes(api, *this);
  add_model_routes(api, *this);
  add_version_routes(api, *this);
}

}  // namespace lathe::models
