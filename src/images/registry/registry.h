#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "accounts/audit.h"
#include "http/message.h"
#include "images/blob_store.h"
#include "images/images.h"
#include "images/images_store.h"
#include "images/registry/authority.h"
#include "images/registry/place.h"
#include "images/uploads.h"

namespace lathe::images {
class ImagesService;
}

/// The OCI distribution specification 1.1 over the images' store. A repository is an image: `/v2/USER/IMAGE`.
namespace lathe::images::registry {

/// What an operation needs. There is no default: the table of operations says it of each.
enum class Need {
  nothing,  ///< not even an account
  account,  ///< any
  pull,     ///< may see the repository: its user's own, public ones, all for administrators
  push,     ///< may write it: its user's own, all for administrators
  remove,   ///< the same, asked for by another word in tokens
};

/// A repository as somebody sees it.
struct Repository {
  std::string path;                      ///< "zjm/team/a"
  std::string owner_id;                  ///< of its user
  std::string name;                      ///< of the image: "team/a"
  std::optional<store::ImageRow> image;  ///< absent before its first manifest
  bool writable = false;                 ///< by who asks
};

struct Visit {
  Caller caller;
  Repository repository;
};

class Registry final : public http::Handler {
 public:
  struct Parts {
    db::Database& db;
    accounts::Accounts& accounts;
    accounts::Audit& audit;
    IdSource& ids;
    const Clock& clock;
    BlobStore& store;
    Uploads& uploads;
    ImagesService& images;
  };
  static Result<std::unique_ptr<http::Handler>> make(const Parts& parts, RegistryOptions options);

  Intake intake(const http::Request& head) override;
  http::Response handle(http::Request& request) override;
  http::Response failure(const http::Request& request, const Error& error, int status) override;

 private:
  using Answer = Result<http::Response>;
  using Run = Answer (Registry::*)(http::Request&, const Place&, const Visit&);
  struct Operation;
  static const Operation kOperations[];

  Registry(const Parts& parts, RegistryOptions options, std::unique_ptr<Authority> authority)
      : p_(parts), options_(std::move(options)), authority_(std::move(authority)) {}

  static const Operation* find(http::Method method, Target target);
  http::Response no_operation(const http::Request& request, Target target);
  http::Response run(const Operation& operation, http::Request& request, const Place& place);
  /// Fills in the caller with what the operation needs; an answer where that is refused with a challenge.
  Result<std::optional<http::Response>> admit(const Operation& operation, const http::Request& request,
                                              const Place& place, Visit& visit);
  Result<Repository> repository(std::string_view path, const http::Identity& who, bool to_write);
  http::Response challenge(const http::Request& request, const Error& error, std::string_view scope,
                           std::string_view why);
  std::string base_url(const http::Request& request) const;
  std::string repository_path(std::string_view user_id, std::string_view name);

  Answer base(http::Request& request, const Place& place, const Visit& visit);
  Answer token(http::Request& request, const Place& place, const Visit& visit);
  Answer catalog(http::Request& request, const Place& place, const Visit& visit);
  Answer tags(http::Request& request, const Place& place, const Visit& visit);
  Answer referrers(http::Request& request, const Place& place, const Visit& visit);

  Answer get_manifest(http::Request& request, const Place& place, const Visit& visit);
  Answer put_manifest(http::Request& request, const Place& place, const Visit& visit);
  Answer delete_manifest(http::Request& request, const Place& place, const Visit& visit);

  Answer get_blob(http::Request& request, const Place& place, const Visit& visit);
  Answer delete_blob(http::Request& request, const Place& place, const Visit& visit);
  Answer begin_upload(http::Request& request, const Place& place, const Visit& visit);
  Answer mount(http::Request& request, const Visit& visit, const std::string& digest);
  Answer show_upload(http::Request& request, const Place& place, const Visit& visit);
  Answer patch_upload(http::Request& request, const Place& place, const Visit& visit);
  Answer put_upload(http::Request& request, const Place& place, const Visit& visit);
  Answer cancel_upload(http::Request& request, const Place& place, const Visit& visit);
  Answer take_body(http::Request& request, const Visit& visit, Uploads::Held& upload);
  Answer finish_upload(const Visit& visit, Uploads::Held& upload, std::string_view digest);

  const Parts p_;
  const RegistryOptions options_;
  const std::unique_ptr<Authority> authority_;
};

/// The size of a blob that the repository has, loose or named by a manifest.
std::optional<std::uint64_t> blob_in(db::Transaction& tx, const Repository& repository,
                                     std::string_view digest);

}  // namespace lathe::images::registry
