#include "jobs/plan/plan.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>

#include "base/json.h"

namespace lathe::jobs {
namespace {

Job job_of(JobKind kind) {
  Job job;
  job.id = "0190000000000000000000000000abcd";
  job.name = "n";
  job.spec.kind = kind;
  job.spec.image = "host";
  job.spec.command = "python3 train.py --lr ${lr}";
  job.spec.common_parameters = {{"lr", "1 e", ""}, {"epochs", "3", ""}};
  job.spec.tuning_parameters = {{"lora-r", "8", ""}};
  job.spec.strategy = "LoRA";
  job.spec.environment = {{"MINE", "1"}, {"OMP_NUM_THREADS", "7"}};
  job.spec.work = job.spec.output = {JobDirectory::Source::user_root, "3", "a"};
  if (kind != JobKind::evaluation) job.spec.checkpoint = job.spec.output;
  job.spec.groups = {{NodeRole::worker, 1, {.cpu = 1, .memory_gb = 2}},
                     {NodeRole::master, 1, {.cpu = 4, .memory_gb = 8, .gpu = {.count = 2}}}};
  job.spec.time_limit_s = 60;
  return job;
}

LaunchSite site_of(int attempt = 1) {
  LaunchSite site;
  site.run_id = "job-x-1";
  site.attempt = attempt;
  site.log_dir = "/logs";
  site.work = HostPlace{"/root", "code"};
  site.output = HostPlace{"/root", "out"};
  site.checkpoint = HostPlace{"/root", "ckpt"};
  site.gpus = {{{.index = 0, .uuid = "GPU-0"}, {.index = 1, .uuid = "GPU-1"}}, {}};
  site.rendezvous = {.port = 21000, .rank_ports = {21001, 21002}};
  return site;
}

std::map<std::string, std::string> environment(const engines::LaunchPlan& plan, std::size_t rank) {
  std::map<std::string, std::string> out;
  for (const auto* list : {&plan.env, &plan.ranks[rank].env})
    for (const auto& each : *list) out[each.name] = each.value;
  return out;
}

TEST(Plan, EveryKindIsARunnablePlan) {
  for (const JobKind kind : kJobKinds) {
    const auto plan = make_plan(job_of(kind), site_of());
    ASSERT_TRUE(plan.ok()) << name(kind);
    EXPECT_TRUE(engines::check(*plan).ok()) << engines::check(*plan).error().describe(Language::en);
    EXPECT_EQ(plan->argv, (std::vector<std::string>{"/bin/sh", "-c", "python3 train.py --lr \"${lr}\" \"$@\"",
                                                    "sh", "--epochs", "3", "--lora-r", "8"}));
    EXPECT_EQ(plan->time_limit, std::chrono::seconds(60));
    EXPECT_EQ(plan->work_dir, "/workspace/code");
    std::map<std::string, bool> mounts;
    for (const auto& mount : plan->mounts) mounts[mount.target] = mount.writable;
    EXPECT_TRUE(mounts.at("/workspace/output"));
    EXPECT_EQ(mounts.contains("/workspace/checkpoint"), kind != JobKind::evaluation) << name(kind);
    EXPECT_FALSE(mounts.contains("/workspace/model"));
  }
}

TEST(Plan, RanksAreToldWhoTheyAre) {
  const auto plan = make_plan(job_of(JobKind::fine_tune), site_of());
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->ranks.size(), 2u);
  auto zero = environment(*plan, 0), one = environment(*plan, 1);
  EXPECT_EQ(zero["RANK"], "0");
  EXPECT_EQ(zero["LATHE_ROLE"], "master");
  EXPECT_EQ(zero["NPROC_PER_NODE"], "2");
  EXPECT_EQ(one["RANK"], "1");
  EXPECT_EQ(one["WORLD_SIZE"], "2");
  EXPECT_EQ(one["MASTER_PORT"], "21000");
  EXPECT_EQ(one["PET_MASTER_ADDR"], "127.0.0.1");
  EXPECT_EQ(one["OPENBLAS_NUM_THREADS"], "1");
  EXPECT_EQ(one["OMP_NUM_THREADS"], "7") << "the user's own wins";
  EXPECT_EQ(one["MINE"], "1");
  EXPECT_EQ(one["lr"], "1 e");
  EXPECT_FALSE(one.contains("lora-r"));
  EXPECT_EQ(one["output_dir"], "/workspace/output");
  EXPECT_EQ(one["FINE_TUNE_STRATEGY"], "LoRA");
  EXPECT_EQ(one["LATHE_JOB_ID"], "0190000000000000000000000000abcd");
  EXPECT_EQ(json::parse(one["HYPER_PARAMETERS"]).value().at("lora-r").as_string(), "8");
  EXPECT_FALSE(one.contains("RESUME"));
  EXPECT_EQ(plan->ranks[0].resources.gpus.size(), 2u);
  EXPECT_EQ(plan->ranks[0].resources.memory_bytes, 8LL << 30);
  EXPECT_EQ(plan->ranks[1].resources.cpus, 1);
}

TEST(Plan, ALaterAttemptIsToldWhereToGoOn) {
  auto site = site_of(2);
  site.resume_from = "checkpoint-40";
  auto told = environment(*make_plan(job_of(JobKind::pretrain), site), 0);
  EXPECT_EQ(told["RESUME"], "1");
  EXPECT_EQ(told["RESUME_FROM_CHECKPOINT"], "/workspace/checkpoint/checkpoint-40");
  EXPECT_FALSE(environment(*make_plan(job_of(JobKind::evaluation), site), 0).contains("RESUME"));
}

TEST(Plan, TensorFlowKnowsItsCluster) {
  Job job = job_of(JobKind::modelling);
  job.spec.framework = "TensorFlow";
  const auto plan = make_plan(job, site_of());
  const auto config = json::parse(environment(*plan, 1)["TF_CONFIG"]).value();
  EXPECT_EQ(config.at("cluster").at("chief").at(0).as_string(), "127.0.0.1:21001");
  EXPECT_EQ(config.at("cluster").at("worker").at(0).as_string(), "127.0.0.1:21002");
  EXPECT_EQ(config.at("task").at("type").as_string(), "worker");
}

TEST(Plan, MpiIsOneLauncherWithSlots) {
  Job job = job_of(JobKind::modelling);
  job.spec.framework = "MPI";
  auto site = site_of();
  site.hostfile = HostPlace{"/logs", "hostfile"};
  const auto plan = make_plan(job, site);
  ASSERT_EQ(plan->ranks.size(), 1u);
  EXPECT_EQ(plan->ranks[0].resources.cpus, 5);
  EXPECT_EQ(plan->ranks[0].resources.gpus.size(), 2u);
  EXPECT_EQ(mpi_hostfile(job.spec), "localhost slots=3\n");
  EXPECT_EQ(environment(*plan, 0)["MPI_HOSTFILE"], "/workspace/hostfile");
}

TEST(Plan, APresetAlgorithmBringsItsOwnWords) {
  Job job = job_of(JobKind::fine_tune);
  job.spec.command.clear();
  job.spec.algorithm_id = "x";
  job.spec.argv = {"python3", "/workspace/algorithm/a.py", "--lr", "$(id)"};
  auto site = site_of();
  site.algorithm = HostPlace{"/algorithms/x", ""};
  const auto plan = make_plan(job, site);
  EXPECT_EQ(plan->argv, job.spec.argv);
}

}  // namespace
}  // namespace lathe::jobs
