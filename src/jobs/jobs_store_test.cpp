#include "jobs/jobs_store.h"

#include <gtest/gtest.h>

#include <fmt/format.h>
#include <algorithm>
#include <chrono>

#include "db/query_plan.h"
#include "db/test_database.h"
#include "jobs/lifecycle.h"

namespace lathe::jobs {
namespace {

class StoreTest : public testing::Test {
 protected:
  Job make(const std::string& user, JobKind kind, const std::string& name) {
    Job job;
    job.id = ids_.next();
    job.user_id = user;
    job.user_name = "user " + user;
    job.name = name;
    job.spec.kind = kind;
    job.spec.group_id = "g";
    job.spec.command = "run";
    job.spec.groups = {{NodeRole::master, 1, {.cpu = 2, .memory_gb = 3}}};
    job.created_at = job.queued_at = clock_.now();
    return job;
  }
  std::string add(const std::string& user, JobKind kind, const std::string& name,
                  JobState state = JobState::queued) {
    Job job = make(user, kind, name);
    job.state = state;
    if (is_ended(state)) job.ended_at = clock_.now();
    write([&](db::Transaction& tx) { store::insert_job(tx, job, store::stored_spec(job.spec), "{}"); });
    return job.id;
  }
  template <class Work>
  void write(Work work) {
    const auto done = db_->write([&](db::Transaction& tx) -> Result<void> {
      work(tx);
      return {};
    });
    ASSERT_TRUE(done.ok()) << done.error().describe(Language::en);
  }
  std::vector<std::string> names(const std::vector<Job>& jobs) {
    std::vector<std::string> out;
    for (const auto& job : jobs) out.push_back(job.name);
    return out;
  }

  std::unique_ptr<db::Database> db_ = db::open_test_database();
  ManualClock clock_{Time{std::chrono::milliseconds(1'700'000'000'000)}};
  Uuid7Source ids_{clock_};
  Lifecycle lifecycle_{ids_, clock_};
};

TEST_F(StoreTest, AJobComesBackAsItWasWritten) {
  Job job = make("7", JobKind::pretrain, "名 1");
  job.description = "d";
  job.cause = {.reason = Reason::exit_code, .number = 7, .rank = 1, .detail = {"中", "en"}};
  job.spec.common_parameters = {{"lr", "1e-4", ""}};
  write([&](db::Transaction& tx) {
    store::insert_job(tx, job, store::stored_spec(job.spec), R"({"name":"x"})");
    const auto back = store::find_job(tx, job.id);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->name, "名 1");
    EXPECT_EQ(back->cause, job.cause);
    EXPECT_EQ(back->spec.kind, JobKind::pretrain);
    EXPECT_EQ(back->spec.common_parameters.at(0).value, "1e-4");
    EXPECT_EQ(back->spec.groups, job.spec.groups);
    EXPECT_EQ(back->created_at, job.created_at);
    EXPECT_EQ(back->started_at, std::nullopt);
    EXPECT_EQ(store::find_request(tx, job.id), R"({"name":"x"})");
    EXPECT_FALSE(store::find_job(tx, "nobody"));
  });
}

TEST_F(StoreTest, AChangeThatComesTooLateChangesNothing) {
  Job job = make("7", JobKind::pretrain, "a");
  write([&](db::Transaction& tx) {
    store::insert_job(tx, job, store::stored_spec(job.spec), "{}");
    Job mine = *store::find_row(tx, job.id), theirs = mine;
    theirs.progress = 0.5;
    EXPECT_TRUE(store::update_job(tx, theirs));
    mine.progress = 0.1;
    EXPECT_FALSE(store::update_job(tx, mine));
    EXPECT_EQ(store::find_row(tx, job.id)->progress, 0.5);
    EXPECT_EQ(store::find_row(tx, job.id)->version, job.version + 1);
  });
}

TEST_F(StoreTest, ListsFilterAndPage) {
  for (int i = 0; i < 30; ++i)
    add(i % 3 == 0 ? "1" : "2", i % 2 == 0 ? JobKind::fine_tune : JobKind::pretrain,
        fmt::format("Job_{}%", i), i < 10 ? JobState::succeeded : JobState::queued);
  write([&](db::Transaction& tx) {
    const std::vector<JobKind> both{JobKind::fine_tune, JobKind::pretrain};
    auto page = store::page(tx, {.kinds = both}, 0, 3);
    EXPECT_EQ(page.total, 30);
    EXPECT_EQ(names(page.jobs), (std::vector<std::string>{"Job_29%", "Job_28%", "Job_27%"}));
    // From the other end: the same order.
    page = store::page(tx, {.kinds = both}, 27, 10);
    EXPECT_EQ(names(page.jobs), (std::vector<std::string>{"Job_2%", "Job_1%", "Job_0%"}));
    EXPECT_TRUE(store::page(tx, {.kinds = both}, 30, 10).jobs.empty());
    page = store::page(tx, {.kinds = {JobKind::pretrain}, .user_id = "1", .status = "Succeeded"}, 0, 10);
    EXPECT_EQ(names(page.jobs), (std::vector<std::string>{"Job_9%", "Job_3%"}));
    EXPECT_EQ(store::page(tx, {.kinds = both, .name_part = "job_1"}, 0, 50).total, 11);
    EXPECT_EQ(store::page(tx, {.kinds = both, .name_part = "5%"}, 0, 50).total, 3);
    EXPECT_EQ(store::page(tx, {.kinds = both, .name_part = "b%"}, 0, 50).total, 0);
    EXPECT_EQ(store::page(tx, {.kinds = both, .name_part = "' OR 1=1 --"}, 0, 50).total, 0);
    const auto first = store::older(tx, {.kinds = both}, "", 2);
    EXPECT_EQ(names(first), (std::vector<std::string>{"Job_29%", "Job_28%"}));
    EXPECT_EQ(names(store::older(tx, {.kinds = both}, first.back().id, 2)),
              (std::vector<std::string>{"Job_27%", "Job_26%"}));
  });
}

TEST_F(StoreTest, WhatIsHeldIsWhatIsActive) {
  add("1", JobKind::fine_tune, "a", JobState::running);
  add("1", JobKind::fine_tune, "b", JobState::stopping);
  add("1", JobKind::fine_tune, "c", JobState::queued);
  add("1", JobKind::fine_tune, "d", JobState::failed);
  add("2", JobKind::fine_tune, "e", JobState::starting);
  write([&](db::Transaction& tx) {
    std::int64_t jobs = 0;
    EXPECT_EQ(store::held_by(tx, "1", jobs), (ResourceTotal{4, 6, 0, 0, 0}));
    EXPECT_EQ(jobs, 2);
    EXPECT_EQ(store::held_by(tx, "", jobs).cpu, 6);
    EXPECT_EQ(store::held_by(tx, "3", jobs), ResourceTotal{});
    EXPECT_EQ(store::open_jobs_of_user(tx, "1"), 3);
    EXPECT_EQ(store::open_jobs_of_group(tx, "g"), 4);
    EXPECT_EQ(names(store::active_jobs(tx)), (std::vector<std::string>{"e", "a", "b"}));
    EXPECT_EQ(names(store::queued_jobs(tx, "", 10)), (std::vector<std::string>{"c"}));
  });
}

TEST_F(StoreTest, OneHundredThousandJobsAreListedFromIndexes) {
  write([&](db::Transaction& tx) {
    // Written by one statement: this is about reading.
    tx.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
        "INSERT INTO jobs SELECT printf('%032d', i), CAST(i % 50 AS TEXT), 'u', CASE i % 4 WHEN 0 THEN "
        "'fine_tune' "
        "WHEN 1 THEN 'pretrain' WHEN 2 THEN 'modelling' ELSE 'evaluation' END, 'name ' || i, 'd', 'g', "
        "'succeeded', "
        "CASE i % 5 WHEN 0 THEN 'Failed' ELSE 'Succeeded' END, '', 0, -1, '', '', 1, 1, '', i, i, i, i, 1, "
        "1, 1, 0, "
        "0, 0 FROM n");
  });
  const std::vector<JobKind> both{JobKind::fine_tune, JobKind::pretrain};
  const store::Filter filters[] = {
      {.kinds = {JobKind::modelling}},
      {.kinds = both},
      {.kinds = both, .status = "Failed"},
      {.kinds = both, .user_id = "8"},
      {.kinds = both, .user_id = "8", .status = "Succeeded"},
      {.kinds = {std::begin(kJobKinds), std::end(kJobKinds)}},
  };
  write([&](db::Transaction& tx) {
    // The queue is read in pieces, each from where the last one ended.
    const auto pieces = store::queue_query("", 1000);
    const std::string queue = db::explain(tx, pieces.text, pieces.args);
    EXPECT_TRUE(db::uses_indexes_only(queue)) << queue;
    for (const auto& filter : filters) {
      for (const auto& sql : store::list_queries(filter)) {
        const std::string plan = db::explain(tx, sql.text, sql.args);
        EXPECT_TRUE(db::uses_indexes_only(plan)) << sql.text << "\n" << plan;
      }
      const auto total = store::page(tx, filter, 0, 10).total;
      ASSERT_GT(total, 0);
      for (const auto offset : {std::int64_t{0}, total / 2, total - 10}) {
        const auto began = std::chrono::steady_clock::now();
        EXPECT_EQ(store::page(tx, filter, offset, 10).jobs.size(), 10u);
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
        // A generous bound: a list that sorts or reads the table takes far longer even on a busy machine.
        EXPECT_LT(took.count(), 250) << "offset " << offset;
        RecordProperty(fmt::format("ms_at_{}", offset), fmt::format("{:.2f}", took.count()));
      }
    }
  });
}

TEST_F(StoreTest, ALifeLeavesItsTraces) {
  const std::string id = add("1", JobKind::fine_tune, "a");
  write([&](db::Transaction& tx) {
    const auto begun = lifecycle_.begin(tx, id, "process", {.gpus = {{}}, .port = 20001});
    ASSERT_TRUE(begun);
    EXPECT_EQ(begun->run_id, "job-" + id + "-1");
    EXPECT_EQ(job_of_run(begun->run_id), id);
    EXPECT_FALSE(lifecycle_.begin(tx, id, "process", {})) << "nothing starts twice";
    EXPECT_EQ(store::active_runs(tx).at(0).granted.port, 20001);
    ASSERT_TRUE(lifecycle_.running(tx, id, clock_.now()));
    EXPECT_FALSE(lifecycle_.running(tx, id, clock_.now()));
    ASSERT_TRUE(lifecycle_.stop(tx, id).ok());
    ASSERT_TRUE(lifecycle_.stop(tx, id).ok()) << "a second request to stop is no error";
    EXPECT_EQ(lifecycle_.retry(tx, id).error().code, Code::failed_precondition);
    ASSERT_TRUE(
        lifecycle_.finish(tx, id, {.cause = {.reason = Reason::stopped_by_user}, .at = clock_.now()}));
    EXPECT_FALSE(lifecycle_.finish(tx, id, {.cause = {.reason = Reason::completed}, .at = clock_.now()}));
    EXPECT_EQ(lifecycle_.stop(tx, id).error().code, Code::failed_precondition);
    EXPECT_EQ(store::find_row(tx, id)->state, JobState::cancelled);
    EXPECT_TRUE(store::active_runs(tx).empty());

    const auto again = lifecycle_.retry(tx, id);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->attempt, 2);
    EXPECT_EQ(lifecycle_.begin(tx, id, "process", {})->run_id, "job-" + id + "-2");
    const auto restarted =
        lifecycle_.restart(tx, id, {.cause = {.reason = Reason::node_failure}, .at = clock_.now()});
    ASSERT_TRUE(restarted);
    EXPECT_EQ(restarted->state, JobState::queued);
    EXPECT_EQ(restarted->attempt, 3);
    EXPECT_EQ(store::runs_of(tx, id).size(), 2u);
    EXPECT_EQ(store::runs_of(tx, id)[1].cause.reason, Reason::node_failure);
    ASSERT_TRUE(lifecycle_.stop(tx, id).ok());
    EXPECT_EQ(store::find_row(tx, id)->state, JobState::cancelled) << "a waiting job is stopped at once";

    std::vector<std::string> states;
    for (const auto& event : store::events_of(tx, id, "", 100)) states.push_back(event.state);
    EXPECT_EQ(states, (std::vector<std::string>{"starting", "running", "stopping", "cancelled", "queued",
                                                "starting", "queued", "cancelled"}));
  });
}

TEST_F(StoreTest, MetricsAndCheckpointsKeepOneRowEach) {
  const std::string id = add("1", JobKind::fine_tune, "a");
  write([&](db::Transaction& tx) {
    store::put_metric(tx, id, {"loss", 1, 2.5, clock_.now()});
    store::put_metric(tx, id, {"loss", 2, 2.0, clock_.now()});
    store::put_metric(tx, id, {"loss", 1, 2.4, clock_.now()});
    store::put_metric(tx, id, {"acc", -1, 0.5, clock_.now()});
    EXPECT_EQ(store::metrics_of(tx, id, "", 10).size(), 3u);
    EXPECT_EQ(store::metrics_of(tx, id, "loss", 10).at(0).value, 2.4);
    const auto latest = store::latest_metrics(tx, id);
    ASSERT_EQ(latest.size(), 2u);
    EXPECT_EQ(latest[0].name, "acc");
    EXPECT_EQ(latest[1].value, 2.0);
    store::Checkpoint point{ids_.next(),  id, "checkpoint", "checkpoint-5",
                            "checkpoint", 5,  100,          clock_.now()};
    store::put_checkpoint(tx, point);
    const std::string first = point.id;
    point.id = ids_.next();
    point.size_bytes = 200;
    store::put_checkpoint(tx, point);
    ASSERT_EQ(store::checkpoints_of(tx, id).size(), 1u);
    EXPECT_EQ(store::checkpoints_of(tx, id)[0].id, first);
    EXPECT_EQ(store::find_checkpoint(tx, first)->size_bytes, 200);
    store::delete_job(tx, id);
    EXPECT_FALSE(store::exists(tx, id));
    EXPECT_TRUE(store::metrics_of(tx, id, "", 10).empty());
    EXPECT_EQ(store::trash(tx), std::vector<std::string>{id});
    store::forget_trash(tx, id);
    EXPECT_TRUE(store::trash(tx).empty());
  });
}

}  // namespace
}  // namespace lathe::jobs
