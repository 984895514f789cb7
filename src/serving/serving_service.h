#pragma once

#include <string>
#include <vector>

#include "serving/controller.h"
#include "serving/serving.h"
#include "serving/serving_wire.h"

namespace lathe::serving {

/// What users do with services. Safe from any thread.
class Service final : public Serving {
 public:
  Service(const Parts& parts, Options options);

  void start() override;
  void run_changed(const std::string& run_id) override;
  std::vector<engines::GpuGrant> held_gpus(db::Transaction& tx) override;
  std::vector<Held> holdings() override;
  void add_routes(http::Api& api) override;
  quotas::Compute usage_of(db::Transaction& tx, std::string_view user_id) override;
  quotas::Compute total_usage(db::Transaction& tx) override;

  /// 8.1 with `run`, 8.2 without.
  Result<wire::Created> create(http::Call& call, const wire::CreateRequest& request, bool run);
  Result<http::Page<wire::ServerAnswer>> list(const http::Call& call, const wire::ListRequest& request);
  Result<wire::ServerAnswer> show(const http::Call& call, const std::string& id);
  Result<wire::VersionAnswer> show_version(const http::Call& call, const std::string& id);
  Result<wire::ServerAnswer> set_started(const http::Call& call, const std::string& id, bool started);
  Result<wire::ServerAnswer> change(const http::Call& call, const wire::ChangeRequest& request);
  Result<Nothing> remove(const http::Call& call, const std::string& id);
  Result<wire::MetricsAnswer> metrics(const http::Call& call, const std::string& id);
  Result<http::Slice<wire::EventAnswer>> events(const http::Call& call, const wire::EventQuery& query);
  Result<std::string> log_path(const http::Call& call, const std::string& id, const std::string& replica);

 private:
  /// May they have something run as a service?
  Result<void> check_access(const http::Call& call) const;
  /// The service, if the caller may see it; else not_found.
  Result<store::DeploymentRow> find(db::Transaction& tx, const http::Call& call, const std::string& id);
  wire::VersionAnswer named(wire::VersionAnswer version);
  wire::ServerAnswer named(wire::ServerAnswer server);
  /// A change that has committed takes effect: the routes and the replicas follow it.
  Result<wire::ServerAnswer> published(Result<wire::ServerAnswer> changed);
  /// Without the owner's name: see `named`.
  wire::ServerAnswer answer(db::Transaction& tx, const store::DeploymentRow& row, Language language);
  wire::VersionAnswer answer(db::Transaction& tx, const store::DeploymentRow& deployment,
                             const store::VersionRow& row, Language language);
  Result<std::vector<store::VersionRow>> build_versions(const http::Call& call,
                                                        const wire::CreateRequest& request,
                                                        const accounts::User& owner);
  Result<void> change_version(store::VersionRow& version, const wire::VersionChange& wanted,
                              const std::string& field);
  /// Keeps what a user has done among the service's events.
  void note(db::Transaction& tx, const std::string& deployment_id, std::string_view reason,
            const Text& words);
  Result<void> await_end(const std::string& deployment_id);

  const Parts parts_;
  const Options options_;
  VersionBuilder builder_{parts_};
  Controller controller_{parts_, options_};
};

}  // namespace lathe::serving
