#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "files/testing.h"
#include "jobs/jobs_service.h"

/// For tests: jobs on top of the platform's lower half, with an engine that runs nothing and does what it is
/// told. See files/testing.h for the users.
namespace lathe::jobs::testing {

/// Keeps the engine's contract in memory: starts a run id once, ever; forgets what is removed.
class TestEngine final : public engines::Engine {
 public:
  std::string_view name() const override { return "process"; }
  engines::Capabilities capabilities() const override {
    const std::lock_guard lock(mutex_);
    engines::Capabilities out{.usable = unusable_.empty()};
    if (!out.usable) out.shortcomings.push_back({unusable_, unusable_});
    return out;
  }

  Result<void> start(const engines::LaunchPlan& plan) override {
    TRY(engines::check(plan));
    {
      const std::lock_guard lock(mutex_);
      ++calls_;
      if (down_) return Error{Code::unavailable, {"不可用", "down"}};
      if (!refusal_.empty()) return Error{Code::failed_precondition, {refusal_, refusal_}};
      if (runs_.contains(plan.run_id)) return {};
      engines::RunStatus status;
      status.run_id = plan.run_id;
      status.ranks.resize(plan.ranks.size());
      runs_[plan.run_id] = {plan, status};
      ++started_[plan.run_id];
    }
    if (runs_at_once_) run(plan.run_id);
    return {};
  }
  Result<engines::RunStatus> inspect(const std::string& run_id) override {
    const std::lock_guard lock(mutex_);
    if (down_) return Error{Code::unavailable, {"不可用", "down"}};
    const auto at = runs_.find(run_id);
    if (at == runs_.end()) return not_found({"运行", "run"}, run_id);
    return at->second.status;
  }
  Result<void> stop(const std::string& run_id, std::optional<Duration>) override {
    {
      const std::lock_guard lock(mutex_);
      const auto at = runs_.find(run_id);
      if (at == runs_.end()) return not_found({"运行", "run"}, run_id);
      if (at->second.status.state == engines::RankState::ended) return {};
    }
    end(run_id, engines::EndCause::stopped);
    return {};
  }
  Result<void> remove(const std::string& run_id) override {
    const std::lock_guard lock(mutex_);
    runs_.erase(run_id);
    return {};
  }
  Result<std::vector<std::string>> list() override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    for (const auto& [id, run] : runs_) out.push_back(id);
    return out;
  }
  Result<engines::Usage> usage(const std::string&) override { return engines::Usage{}; }
  void on_change(std::function<void(const std::string&)> callback) override {
    const std::lock_guard lock(mutex_);
    callback_ = std::move(callback);
  }

  // What a test tells it.
  void run(const std::string& run_id) {
    change(run_id, [](engines::RunStatus& status) {
      status.state = engines::RankState::running;
      status.started_at = SystemClock().now();
      for (auto& rank : status.ranks) rank.state = engines::RankState::running;
    });
  }
  void end(const std::string& run_id, engines::EndCause cause, std::optional<int> code = {}) {
    change(run_id, [&](engines::RunStatus& status) {
      status.state = engines::RankState::ended;
      status.ended_at = SystemClock().now();
      for (auto& rank : status.ranks) {
        rank.state = engines::RankState::ended;
        rank.end = engines::RankEnd{};
        rank.end->cause = cause;
        rank.end->exit_code = code;
        rank.end->message = {"测试", "as the test said"};
      }
    });
  }
  void set_down(bool down) {
    const std::lock_guard lock(mutex_);
    down_ = down;
  }
  void set_unusable(std::string why) {
    const std::lock_guard lock(mutex_);
    unusable_ = std::move(why);
  }
  void set_refusal(std::string why) {
    const std::lock_guard lock(mutex_);
    refusal_ = std::move(why);
  }
  /// Runs stay "starting" until `run` is called.
  void wait_in_starting() { runs_at_once_ = false; }

  int times_started(const std::string& run_id) {
    const std::lock_guard lock(mutex_);
    return started_[run_id];
  }
  int calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  bool knows(const std::string& run_id) {
    const std::lock_guard lock(mutex_);
    return runs_.contains(run_id);
  }
  engines::LaunchPlan plan(const std::string& run_id) {
    const std::lock_guard lock(mutex_);
    return runs_[run_id].plan;
  }

 private:
  struct Run {
    engines::LaunchPlan plan;
    engines::RunStatus status;
  };
  template <class Change>
  void change(const std::string& run_id, Change change) {
    std::function<void(const std::string&)> callback;
    {
      const std::lock_guard lock(mutex_);
      const auto at = runs_.find(run_id);
      if (at == runs_.end()) return;
      change(at->second.status);
      callback = callback_;
    }
    if (callback) callback(run_id);
  }

  mutable std::mutex mutex_;
  std::map<std::string, Run> runs_;
  std::map<std::string, int> started_;
  std::function<void(const std::string&)> callback_;
  bool down_ = false, runs_at_once_ = true;
  std::string refusal_, unusable_;
  int calls_ = 0;
};

/// Only the host's own software.
class HostImages final : public images::Images {
 public:
  Result<images::ImageRef> resolve(std::string_view, bool, std::string_view text,
                                   std::string_view field) override {
    images::ImageRef host;
    host.name = "host";
    if (text.empty() || text == "host") return host;
    return invalid_field(std::string(field), {"没有这个镜像", "there is no such image"});
  }
  std::string layout_path() const override { return {}; }
  Result<std::unique_ptr<images::Export>> open_export(std::string_view digest, std::string_view) override {
    return not_found({"镜像", "image"}, digest);
  }
  Result<std::unique_ptr<http::Handler>> make_registry(images::RegistryOptions) override {
    return std::unique_ptr<http::Handler>();
  }
  void guard_deletion(DeletionGuard) override {}
  void add_uses(Uses) override {}
  void uses_are_told() override {}
  void on_change(std::function<void(std::string_view)>) override {}
  Result<void> start() override { return {}; }
  void stop() override {}
  void add_routes(http::Api&) override {}
  quotas::Storage storage_of(db::Transaction&, std::string_view) override { return {}; }
};

class NoDatasets final : public datasets::Datasets {
 public:
  Result<datasets::DatasetRef> resolve(std::string_view, bool, const datasets::DatasetName& name) override {
    return invalid_field(std::string(name.version_field), {"没有这个数据集", "there is no such dataset"});
  }
  void guard_deletion(DeletionGuard) override {}
  void add_routes(http::Api&) override {}
};

/// Waits for something that another thread does; false after a quarter of a minute.
template <class Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(15);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class JobsPlatform {
 public:
  explicit JobsPlatform(const std::vector<engines::GpuDevice>& gpus = {}) : gpus_(gpus) {
    base_.also([this] { open(); }, [this] { close(); });
    const auto groups = send("GET", "/api/v1/resource-groups", "1").json;
    group_ = std::string(groups.at("items").at(0).at("id").as_string());
    capacity(8, 16);
  }
  ~JobsPlatform() { close(); }

  using Reply = files::testing::Reply;
  Reply send(std::string_view method, std::string path, const std::string& user, const Json& body = nullptr) {
    return base_.send(method, std::move(path), user, body);
  }
  void capacity(double cpu, double memory) {
    EXPECT_EQ(send("PATCH", "/api/v1/resource-groups/" + group_, "1",
                   {{"capacity", {{"cpu", cpu}, {"memoryGb", memory}, {"gpu", gpus_.size()}}}})
                  .status,
              200);
    jobs_->wake();
  }
  /// As after kill -9, as far as the database and the engine can tell, and a new start.
  void restart() { base_.start(); }
  /// Ends everything above the lower half, so that things happen while no server runs.
  void down() { close(); }
  void up() { base_.start(); }

  /// 6.1; gives the id.
  std::string create(const std::string& user, boost::json::object task) {
    if (!task.contains("command")) task["command"] = "run";
    const auto reply = send("POST", "/kernel/trainOperator/createTask", user, task);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return reply.status == 200 ? std::string(reply.json.at("data").at("id").as_string()) : "";
  }
  boost::json::object job(const std::string& id) {
    const auto reply = send("GET", "/api/v1/jobs/" + id, "1");
    return reply.status == 200 ? reply.json.as_object() : boost::json::object{{"state", "gone"}};
  }
  std::string state(const std::string& id) { return std::string(job(id).at("state").as_string()); }
  std::string reason(const std::string& id) {
    const auto found = job(id);
    return found.at("reason").is_null() ? "" : std::string(found.at("reason").at("label").as_string());
  }
  ::testing::AssertionResult becomes(const std::string& id, const std::string& wanted) {
    if (eventually([&] { return state(id) == wanted; })) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << state(id) << " (" << reason(id) << "), not " << wanted;
  }
  ::testing::AssertionResult waits_for(const std::string& id, const std::string& wanted) {
    if (eventually([&] { return state(id) == "queued" && reason(id) == wanted; }))
      return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << state(id) << " (" << reason(id) << "), not waiting for " << wanted;
  }

  files::testing::Platform& base() { return base_; }
  TestEngine& engine() { return engine_; }
  const std::string& group() const { return group_; }
  Jobs& jobs() { return *jobs_; }

 private:
  void open() {
    engines_ = std::make_unique<engines::EngineSet>();
    engines_->add({.engine = &engine_, .gpus = gpus_});
    images_ = std::make_unique<HostImages>();
    datasets_ = std::make_unique<NoDatasets>();
    models::Options options;
    options.folder = base_.host("models");
    models_ = models::Models::open(base_.db(), base_.accounts(), base_.files(), *images_, base_.audit(),
                                   base_.ids(), base_.clock(), options)
                  .value();
    algorithms_ =
        algorithms::Algorithms::open({.directory = "", .code_root = "", .folder = base_.host("algorithms")})
            .value();
    jobs_ = Jobs::open({.db = base_.db(),
                        .accounts = base_.accounts(),
                        .audit = base_.audit(),
                        .quotas = base_.quotas(),
                        .files = base_.files(),
                        .datasets = *datasets_,
                        .images = *images_,
                        .models = *models_,
                        .algorithms = *algorithms_,
                        .engines = *engines_,
                        .ids = base_.ids(),
                        .clock = base_.clock()},
                       {.directory = base_.host("jobs"), .tick = Duration{50}, .first_pause = Duration{5}})
                .value();
    jobs_->add_routes(base_.api());
    engine_.on_change([jobs = jobs_.get()](const std::string& run_id) { jobs->run_changed(run_id); });
    EXPECT_TRUE(jobs_->start().ok());
  }
  void close() {
    engine_.on_change({});
    jobs_.reset();
    algorithms_.reset();
    models_.reset();
    datasets_.reset();
    images_.reset();
    engines_.reset();
  }

  std::vector<engines::GpuDevice> gpus_;
  TestEngine engine_;
  files::testing::Platform base_;
  std::unique_ptr<engines::EngineSet> engines_;
  std::unique_ptr<HostImages> images_;
  std::unique_ptr<NoDatasets> datasets_;
  std::unique_ptr<models::Models> models_;
  std::unique_ptr<algorithms::Algorithms> algorithms_;
  std::unique_ptr<Jobs> jobs_;
  std::string group_;
};

}  // namespace lathe::jobs::testing
