#include <sodium.h>

#include <algorithm>

#include "quotas/quotas_service.h"
#include "quotas/quotas_store.h"

namespace lathe::quotas {

namespace {

std::string new_key() {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  std::string key = "resourceGroup";
  for (int i = 0; i < 16; ++i) key += kLetters[randombytes_uniform(kLetters.size())];
  return key;
}

bool may_use(const ResourceGroup& group, std::string_view user_id, bool admin) {
  return admin || group.users.empty() ||
         std::find(group.users.begin(), group.users.end(), user_id) != group.users.end();
}

Error no_group(std::string_view id) {
  return not_found({"资源组", "resource group"}, id);
}

Error name_taken(const std::string& name) {
  return {Code::already_exists,
          {"资源组名称已被使用", "the name of the resource group is taken"},
          {{"name", {"已存在：" + name, "exists already: " + name}}}};
}

}  // namespace

Result<void> Service::make_default_group() {
  return db_.write([&](db::Transaction& tx) -> Result<void> {
    if (store::group_named(tx, kDefaultGroup)) return {};
    ResourceGroup group;
    group.id = ids_.next();
    group.name = kDefaultGroup;
    group.key = new_key();
    group.engine = "process";
    group.created_at = clock_.now();
    store::insert_group(tx, group);
    return {};
  });
}

ResourceGroup Service::completed(ResourceGroup group) const {
  if (group.engine != "process" && group.engine != "docker") return group;
  if (!group.cpu) group.cpu = machine_.cpu;
  if (!group.memory_gb) group.memory_gb = machine_.memory_gb;
  if (!group.gpu) group.gpu = machine_.gpu;
  return group;
}

Result<Service::Groups> Service::known_groups() {
  std::uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    if (groups_) return groups_;
    epoch = groups_epoch_;
  }
  auto read = TRY(db_.read([&](db::Transaction& tx) -> Result<std::vector<ResourceGroup>> {
    auto all = store::groups(tx, "", 10'000);
    for (auto& group : all) group = completed(std::move(group));
    return all;
  }));
  auto known = std::make_shared<const std::vector<ResourceGroup>>(std::move(read));
  const std::lock_guard lock(mutex_);
  // Whoever changed one meanwhile may have changed what was read.
  if (epoch == groups_epoch_) groups_ = known;
  return known;
}

void Service::forget_groups() {
  const std::lock_guard lock(mutex_);
  groups_.reset();
  ++groups_epoch_;
}

Result<ResourceGroup> Service::resolve_group(std::string_view user_id, const GroupRef& ref) {
  const bool admin = TRY(accounts_.user(user_id)).admin;
  const Groups all = TRY(known_groups());
  struct Way {
    std::string_view given, field;
    std::string ResourceGroup::*member;
  };
  const Way ways[] = {{ref.id, ref.id_field, &ResourceGroup::id},
                      {ref.key, ref.key_field, &ResourceGroup::key},
                      {ref.name, ref.name_field, &ResourceGroup::name}};
  const auto find = [&](std::string ResourceGroup::*member, std::string_view value) -> const ResourceGroup* {
    const auto at = std::find_if(all->begin(), all->end(),
                                 [&](const ResourceGroup& each) { return each.*member == value; });
    return at == all->end() ? nullptr : &*at;
  };
  const ResourceGroup* group = nullptr;
  std::string_view field = ref.id_field;
  for (const Way& way : ways) {
    if (way.given.empty()) continue;
    const ResourceGroup* found = find(way.member, way.given);
    if (!found)
      return invalid_field(std::string(way.field), {"资源组不存在：" + std::string(way.given),
                                                    "no such resource group: " + std::string(way.given)});
    if (group && group->id != found->id)
      return invalid_field(std::string(way.field),
                           {"与 " + std::string(field) + " 不是同一资源组",
                            "is not the resource group that " + std::string(field) + " names"});
    if (!group) field = way.field;
    group = found;
  }
  if (!group) group = find(&ResourceGroup::name, kDefaultGroup);
  if (!group) return no_group(kDefaultGroup);
  if (!may_use(*group, user_id, admin))
    return Error{Code::permission_denied,
                 {"无权使用该资源组", "you may not use this resource group"},
                 {{std::string(field),
                   {"不允许使用资源组 " + group->name,
                    "the resource group " + group->name + " is not open to this user"}}}};
  return *group;
}

Result<ResourceGroup> Service::group(std::string_view id) {
  const Groups all = TRY(known_groups());
  for (const auto& each : *all)
    if (each.id == id) return each;
  return no_group(id);
}

Result<std::vector<ResourceGroup>> Service::groups() {
  return *TRY(known_groups());
}

Result<http::Slice<ResourceGroup>> Service::list_groups(const http::Identity& caller,
                                                        const http::SliceQuery& query) {
  auto all = TRY(groups());
  std::erase_if(all, [&](const ResourceGroup& group) {
    return !may_use(group, caller.user_id, caller.admin) ||
           (!query.cursor.empty() && group.id >= query.cursor);
  });
  return http::slice(query, std::move(all), [](const ResourceGroup& last) { return last.id; });
}

Result<ResourceGroup> Service::show_group(const http::Identity& caller, std::string_view id) {
  auto found = TRY(group(id));
  if (!may_use(found, caller.user_id, caller.admin)) return no_group(id);
  return found;
}

Result<void> Service::check_users(const std::vector<std::string>& users) {
  Error wrong{Code::invalid_argument, {"参数有误", "invalid request"}};
  for (std::size_t i = 0; i < users.size(); ++i)
    if (!accounts_.user(users[i]).ok())
      wrong.violations.push_back(
          {"users[" + std::to_string(i) + "]", {"用户不存在：" + users[i], "no such user: " + users[i]}});
  if (!wrong.violations.empty()) return wrong;
  return {};
}

Result<ResourceGroup> Service::create_group(const http::Call& call, const wire::NewGroup& in) {
  TRY(check_users(in.users));
  ResourceGroup group{call.new_id(),         in.name,         new_key(), in.engine,   in.capacity.cpu,
                      in.capacity.memory_gb, in.capacity.gpu, in.users,  clock_.now()};
  auto written = db_.write([&](db::Transaction& tx) -> Result<ResourceGroup> {
    if (auto before = store::group(tx, group.id)) return completed(std::move(*before));
    if (store::group_named(tx, group.name)) return name_taken(group.name);
    store::insert_group(tx, group);
    audit_.record(tx, call, "resourceGroup.create", "resourceGroup", group.id, group.name);
    return completed(group);
  });
  forget_groups();
  return written;
}

Result<ResourceGroup> Service::patch_group(const http::Call& call, const wire::GroupPatch& in) {
  if (in.users) TRY(check_users(*in.users));
  auto written = db_.write([&](db::Transaction& tx) -> Result<ResourceGroup> {
    auto group = store::group(tx, in.id);
    if (!group) return no_group(in.id);
    if (in.name && *in.name != group->name) {
      if (group->name == kDefaultGroup)
        return Error{Code::failed_precondition,
                     {"默认资源组不能改名", "the default resource group cannot be renamed"}};
      if (store::group_named(tx, *in.name)) return name_taken(*in.name);
      group->name = *in.name;
    }
    if (in.capacity) {
      group->cpu = in.capacity->cpu;
      group->memory_gb = in.capacity->memory_gb;
      group->gpu = in.capacity->gpu;
    }
    if (in.users) group->users = *in.users;
    store::update_group(tx, *group);
    audit_.record(tx, call, "resourceGroup.update", "resourceGroup", group->id, group->name);
    return completed(std::move(*group));
  });
  forget_groups();
  return written;
}

Result<void> Service::delete_group(const http::Call& call, std::string_view id) {
  auto written = db_.write([&](db::Transaction& tx) -> Result<void> {
    const auto group = store::group(tx, id);
    if (!group) return no_group(id);
    if (group->name == kDefaultGroup)
      return Error{Code::failed_precondition,
                   {"默认资源组不能删除", "the default resource group cannot be deleted"}};
    for (const auto& guard : guards_) TRY(guard(tx, id));
    store::delete_group(tx, id);
    audit_.record(tx, call, "resourceGroup.delete", "resourceGroup", id, group->name);
    return {};
  });
  forget_groups();
  return written;
}

}  // namespace lathe::quotas
