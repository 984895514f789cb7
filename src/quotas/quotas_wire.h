#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "quotas/quotas.h"

/// What the requests and answers of quotas and resource groups look like.
namespace lathe::quotas::wire {

// --- the project's own API ---------------------------------------------------------------------------------

struct ById {
  std::string id;
};
inline void fields(Fields& f, ById& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
}

struct QuotaBody {
  Quota quota;
};
inline void fields(Fields& f, QuotaBody& body) {
  constexpr double kMany = 1e9;
  Quota& q = body.quota;
  f.field("cpu", q.cpu, {.doc = "Cores", .min = 0, .max = kMany});
  f.field("memoryGb", q.memory_gb, {.min = 0, .max = kMany});
  f.field("gpu", q.gpu, {.min = 0, .max = kMany});
  f.field("vgpu", q.vgpu, {.min = 0, .max = kMany});
  f.field("mig", q.mig, {.min = 0, .max = kMany});
  f.field("jobs", q.jobs, {.doc = "Running at a time", .min = 0, .max = kMany});
  f.field("storageBytes", q.storage_bytes, {.min = 0, .max = 9e15});
  f.field("storageInodes", q.storage_inodes, {.doc = "Files and folders", .min = 0, .max = 9e15});
  f.field("startTime", q.start_time, {.doc = "Nothing may start before"});
  f.field("endTime", q.end_time, {.doc = "Nothing may start from here on"});
  if (q.start_time && q.end_time && *q.end_time <= *q.start_time)
    f.refuse("endTime", {"应晚于 startTime", "must be after startTime"});
}

struct PutQuota : ById, QuotaBody {};
inline void fields(Fields& f, PutQuota& in) {
  fields(f, static_cast<ById&>(in));
  fields(f, static_cast<QuotaBody&>(in));
}

struct Capacity {
  std::optional<double> cpu, memory_gb;
  std::optional<std::int64_t> gpu;
};
inline void fields(Fields& f, Capacity& c) {
  f.field("cpu", c.cpu, {.doc = "Cores; absent: whatever the engine has", .min = 0, .max = 1e9});
  f.field("memoryGb", c.memory_gb, {.min = 0, .max = 1e9});
  f.field("gpu", c.gpu, {.min = 0, .max = 1e9});
}

inline constexpr std::string_view kEngines = "process|docker|slurm|kubernetes";

struct NewGroup {
  std::string name;
  std::string engine = "process";
  Capacity capacity;
  std::vector<std::string> users;
};
inline void fields(Fields& f, NewGroup& in) {
  f.field("name", in.name, {.required = true, .max_length = 64, .form = Form::name});
  f.field("engine", in.engine, {.one_of = kEngines});
  f.field("capacity", in.capacity);
  f.field("users", in.users, {.doc = "Ids of those who may use it; none: everybody", .form = Form::id});
}

struct GroupPatch {
  std::string id;
  std::optional<std::string> name;
  std::optional<Capacity> capacity;
  std::optional<std::vector<std::string>> users;
};
inline void fields(Fields& f, GroupPatch& in) {
  f.field("id", in.id, {.required = true, .max_length = 64, .form = Form::id});
  f.field("name", in.name, {.max_length = 64, .form = Form::name});
  f.field("capacity", in.capacity, {.doc = "Replaces the whole capacity"});
  f.field("users", in.users, {.doc = "Replaces the whole list", .form = Form::id});
}

struct GroupOut {
  std::string id, name, key, engine;
  Capacity capacity;
  std::vector<std::string> users;
  Time created_at{};
};
inline void fields(Fields& f, GroupOut& out) {
  f.field("id", out.id);
  f.field("name", out.name);
  f.field("key", out.key, {.doc = "`resourceGroupKey` of the documented calls"});
  f.field("engine", out.engine, {.one_of = kEngines});
  f.field("capacity", out.capacity);
  f.field("users", out.users, {.doc = "Ids of those who may use it; none: everybody"});
  f.field("createdAt", out.created_at);
}

// --- the documented calls ----------------------------------------------------------------------------------

struct RemainQuery {
  std::string user_id;
};
inline void fields(Fields& f, RemainQuery& in) {
  f.field("userId", in.user_id, {.doc = "用户 ID，空为自己", .max_length = 64, .form = Form::id});
}

struct Remain {
  std::int64_t cpu = 0;
  double memory_gb = 0;
  std::int64_t vgpu = 0, mig = 0, jobs = 0, gpu = 0;
  bool initial = false;
  Time start_time{}, end_time{};
};
inline void fields(Fields& f, Remain& out) {
  f.field("remainCpu", out.cpu, {.doc = "剩余 CPU"});
  f.field("remainMemory", out.memory_gb, {.doc = "剩余内存(GB)"});
  f.field("remainMerory", out.memory_gb, {.doc = "同 remainMemory"});
  f.field("remainVgpu", out.vgpu, {.doc = "剩余 vGPU"});
  f.field("remainMig", out.mig, {.doc = "剩余 MIG"});
  f.field("remainJobNum", out.jobs, {.doc = "剩余运行作业数"});
  f.field("remainGpu", out.gpu, {.doc = "剩余 GPU"});
  f.field("isInitConfig", out.initial);
  f.field("startTime", out.start_time, {.doc = "配额生效时间"});
  f.field("endTime", out.end_time, {.doc = "配额到期时间"});
}

struct StorageQuery {
  std::string user_id;
  std::optional<std::int64_t> uid;
};
inline void fields(Fields& f, StorageQuery& in) {
  f.field("userId", in.user_id, {.doc = "用户 ID", .required = true, .max_length = 64, .form = Form::id});
  f.field("uId", in.uid, {.doc = "Linux 用户的 uid", .min = 0, .max = 4294967295.0});
  if (!in.uid || !f.reading()) f.field("uid", in.uid, {.doc = "同 uId", .min = 0, .max = 4294967295.0});
  if (!in.uid) f.refuse("uId", {"不能为空", "is required"});
}

struct StorageRemain {
  std::string inode_quota, inode_used, inode_remain;
  std::string block_quota, block_used, block_remain;
  std::string start_time, end_time;
  bool initial = false;
};
inline void fields(Fields& f, StorageRemain& out) {
  f.field("inodeQuota", out.inode_quota, {.doc = "文件数配额"});
  f.field("inodeUsed", out.inode_used, {.doc = "已用文件数"});
  f.field("inodeRemain", out.inode_remain, {.doc = "剩余文件数"});
  f.field("blockQuota", out.block_quota, {.doc = "容量配额"});
  f.field("blockUsed", out.block_used, {.doc = "已用容量"});
  f.field("blockRemain", out.block_remain, {.doc = "剩余容量"});
  f.field("startTime", out.start_time, {.doc = "配额生效时间"});
  f.field("endTime", out.end_time, {.doc = "配额到期时间"});
  f.field("initConfig", out.initial);
}

}  // namespace lathe::quotas::wire
