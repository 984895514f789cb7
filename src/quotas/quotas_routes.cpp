#include "quotas/quotas_service.h"

namespace lathe::quotas {

namespace {

using http::Access;
using http::Call;
using http::Method;

wire::GroupOut out(ResourceGroup group) {
  return {std::move(group.id),
          std::move(group.name),
          std::move(group.key),
          std::move(group.engine),
          {group.cpu, group.memory_gb, group.gpu},
          std::move(group.users),
          group.created_at};
}

void add_quota_routes(http::Api& api, Service& service) {
  const std::string path = "/api/v1/users/{id}/quota";
  api.add<wire::ById, wire::QuotaBody>(
      {.method = Method::get,
       .path = path,
       .access = Access::user,
       .id = "getQuota",
       .tag = "quotas",
       .summary = "A user's quota: one's own, an administrator anybody's; null is unlimited"},
      [&service](Call& call, const wire::ById& in) -> Result<wire::QuotaBody> {
        return wire::QuotaBody{TRY(service.show_quota(call.caller, in.id))};
      });
  api.add<wire::PutQuota, wire::QuotaBody>(
      {.method = Method::put,
       .path = path,
       .access = Access::admin,
       .id = "putQuota",
       .tag = "quotas",
       .summary = "Set a user's quota as a whole; what is absent becomes unlimited"},
      [&service](Call& call, const wire::PutQuota& in) -> Result<wire::QuotaBody> {
        TRY(service.put_quota(call, in.id, in.quota));
        return wire::QuotaBody{in.quota};
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = path,
                                .access = Access::admin,
                                .id = "deleteQuota",
                                .tag = "quotas",
                                .summary = "Lift a user's quota",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.delete_quota(call, in.id));
                                 return Nothing{};
                               });
}

void add_group_routes(http::Api& api, Service& service) {
  const std::string list = "/api/v1/resource-groups", one = list + "/{id}";
  api.add<http::SliceQuery, http::Slice<wire::GroupOut>>(
      {.method = Method::get,
       .path = list,
       .access = Access::user,
       .id = "listResourceGroups",
       .tag = "quotas",
       .summary = "The resource groups one may use, newest first"},
      [&service](Call& call, const http::SliceQuery& query) -> Result<http::Slice<wire::GroupOut>> {
        auto found = TRY(service.list_groups(call.caller, query));
        http::Slice<wire::GroupOut> shown{{}, std::move(found.nextCursor)};
        for (auto& group : found.items) shown.items.push_back(out(std::move(group)));
        return shown;
      });
  api.add<wire::NewGroup, wire::GroupOut>(
      {.method = Method::post,
       .path = list,
       .access = Access::admin,
       .id = "createResourceGroup",
       .tag = "quotas",
       .summary = "Create a resource group",
       .success_status = 201},
      [&service](Call& call, const wire::NewGroup& in) -> Result<wire::GroupOut> {
        return out(TRY(service.create_group(call, in)));
      });
  api.add<wire::ById, wire::GroupOut>({.method = Method::get,
                                       .path = one,
                                       .access = Access::user,
                                       .id = "getResourceGroup",
                                       .tag = "quotas",
                                       .summary = "Show a resource group"},
                                      [&service](Call& call, const wire::ById& in) -> Result<wire::GroupOut> {
                                        return out(TRY(service.show_group(call.caller, in.id)));
                                      });
  api.add<wire::GroupPatch, wire::GroupOut>(
      {.method = Method::patch,
       .path = one,
       .access = Access::admin,
       .id = "updateResourceGroup",
       .tag = "quotas",
       .summary = "Change a resource group's name, capacity or users"},
      [&service](Call& call, const wire::GroupPatch& in) -> Result<wire::GroupOut> {
        return out(TRY(service.patch_group(call, in)));
      });
  api.add<wire::ById, Nothing>({.method = Method::del,
                                .path = one,
                                .access = Access::admin,
                                .id = "deleteResourceGroup",
                                .tag = "quotas",
                                .summary = "Delete a resource group that nothing uses",
                                .success_status = 204},
                               [&service](Call& call, const wire::ById& in) -> Result<Nothing> {
                                 TRY(service.delete_group(call, in.id));
                                 return Nothing{};
                               });
}

void add_documented_routes(http::Api& api, Service& service) {
  api.add<wire::RemainQuery, wire::Remain>(
      {.method = Method::post,
       .path = "/system/config/getRemainResource",
       .access = Access::user,
       .id = "getRemainResource",
       .tag = "quotas",
       .summary = "What is left of a user's computing quota",
       .envelope = &http::kFileEnvelope,
       .success_message = "获取剩余资源成功",
       .section = "4.5, 5.5, 9.1"},
      [&service](Call& call, const wire::RemainQuery& in) { return service.remain(call.caller, in); });
  api.add<wire::StorageQuery, wire::StorageRemain>({.method = Method::post,
                                                    .path = "/resource/configRemake/getQuotaRemainResource",
                                                    .access = Access::user,
                                                    .id = "getQuotaRemainResource",
                                                    .tag = "quotas",
                                                    .summary = "What is left of a user's storage quota",
                                                    .envelope = &http::kFileEnvelope,
                                                    .success_message = "查询成功",
                                                    .section = "9.2"},
                                                   [&service](Call& call, const wire::StorageQuery& in) {
                                                     return service.storage_remain(call.caller, in);
                                                   });
}

}  // namespace

void Service::add_routes(http::Api& api) {
  add_quota_routes(api, *this);
  add_group_routes(api, *this);
  add_documented_routes(api, *this);
}

}  // namespace lathe::quotas
