#include "quotas/quotas_store.h"

namespace lathe::quotas {

/// The columns; found by the database's visitors beside the struct.
void fields(Fields& f, ResourceGroup& group) {
  f.field("id", group.id);
  f.field("name", group.name);
  f.field("key", group.key);
  f.field("engine", group.engine);
  f.field("cpu", group.cpu);
  f.field("memory_gb", group.memory_gb);
  f.field("gpu", group.gpu);
  f.field("users", group.users);
  f.field("created_at", group.created_at);
}

namespace store {

namespace {

struct QuotaRow {
  std::string user_id;
  Quota quota;
};
void fields(Fields& f, QuotaRow& row) {
  f.field("user_id", row.user_id);
  f.field("cpu", row.quota.cpu);
  f.field("memory_gb", row.quota.memory_gb);
  f.field("gpu", row.quota.gpu);
  f.field("vgpu", row.quota.vgpu);
  f.field("mig", row.quota.mig);
  f.field("jobs", row.quota.jobs);
  f.field("storage_bytes", row.quota.storage_bytes);
  f.field("storage_inodes", row.quota.storage_inodes);
  f.field("start_time", row.quota.start_time);
  f.field("end_time", row.quota.end_time);
}

db::Value text(std::string_view value) {
  return std::string(value);
}

}  // namespace

std::optional<Quota> quota(db::Transaction& tx, std::string_view user_id) {
  auto row = db::select_one<QuotaRow>(tx, "SELECT * FROM quotas WHERE user_id = $1", {text(user_id)});
  if (!row) return std::nullopt;
  return row->quota;
}

void put_quota(db::Transaction& tx, std::string_view user_id, const Quota& quota) {
  delete_quota(tx, user_id);
  db::insert(tx, "quotas", QuotaRow{std::string(user_id), quota});
}

std::int64_t delete_quota(db::Transaction& tx, std::string_view user_id) {
  return tx.execute("DELETE FROM quotas WHERE user_id = $1", {text(user_id)});
}

std::optional<ResourceGroup> group(db::Transaction& tx, std::string_view id) {
  return db::select_one<ResourceGroup>(tx, "SELECT * FROM resource_groups WHERE id = $1", {text(id)});
}

std::optional<ResourceGroup> group_named(db::Transaction& tx, std::string_view name) {
  return db::select_one<ResourceGroup>(tx, "SELECT * FROM resource_groups WHERE name = $1", {text(name)});
}

std::vector<ResourceGroup> groups(db::Transaction& tx, std::string_view before, std::int64_t limit) {
  return db::select<ResourceGroup>(tx,
                                   "SELECT * FROM resource_groups WHERE id < $1 ORDER BY id DESC LIMIT $2",
                                   {text(before.empty() ? "~" : before), limit});
}

void insert_group(db::Transaction& tx, const ResourceGroup& group) {
  db::insert(tx, "resource_groups", group);
}

void update_group(db::Transaction& tx, const ResourceGroup& group) {
  db::update(tx, "resource_groups", group);
}

void delete_group(db::Transaction& tx, std::string_view id) {
  tx.execute("DELETE FROM resource_groups WHERE id = $1", {text(id)});
}

}  // namespace store
}  // namespace lathe::quotas
