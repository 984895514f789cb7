#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/files.h"
#include "images/export.h"

/// Images: records with tags, imports of archives, and a content-addressed store that is an OCI image layout
/// (https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md).
namespace lathe::images {

/// This machine's own software, as an image: every user may use it, nothing is imported.
inline constexpr std::string_view kHostImage = "host";
inline constexpr std::string_view kDefaultTag = "latest";

/// What an image says about the process it wants (the `config` of its OCI configuration).
struct ImageConfig {
  std::vector<std::string> entrypoint, cmd;
  std::vector<std::string> env;  ///< `NAME=value`
  std::string working_dir, user;
  std::vector<std::string> exposed_ports;  ///< `8000/tcp`
};

/// An image somebody may run.
struct ImageRef {
  enum class Kind { host, oci };
  Kind kind = Kind::host;
  std::string id;      ///< of the record
  std::string name;    ///< "dzq/45"; "host"
  std::string tag;     ///< empty for the host
  std::string digest;  ///< of the OCI manifest, "sha256:…"; empty for the host, or while not ready
  bool ready = true;   ///< false: its first import is under way
  std::uint64_t size = 0;
  ImageConfig config;
};

struct Options {
  std::string store_directory;                 ///< DATA/images; made where absent
  std::size_t importers = 2;                   ///< imports at the same time
  std::uint64_t max_image_bytes = 1ULL << 40;  ///< of one archive, unpacked
  std::uint64_t max_entries = 10'000;          ///< of one archive
  /// An archive may unpack to this many times its size (beyond its first GiB): more is a bomb.
  std::uint64_t max_ratio = 200;
  /// What no tag leads to any more, blobs that no manifest came to name, and pushes that nobody went on with
  /// are kept for so long.
  Duration unused_lifetime{std::chrono::hours{24}};
  Duration sweep_interval{std::chrono::hours{1}};  ///< between two looks for what nothing needs
  /// Registries that images may be pulled from: hosts, whose addresses may then be private; `*`: every host
  /// at a public address.
  std::vector<std::string> registries{"*"};
  std::vector<std::string> insecure_registries;  ///< such hosts that speak plain HTTP
  Duration pull_retry{1000};                     ///< before a broken transfer is gone on with; doubles
};

struct RegistryOptions {
  /// How clients reach the server ("https://lathe.example"); empty: as the request's Host says.
  std::string public_url;
  bool tls = false;  ///< of this server itself
  /// Told of every answer, as http::Api::Hooks::observe.
  std::function<void(std::string_view operation, int status, double seconds)> observe;
};

/// Safe from any thread. References given to `open` must outlive it. Imports under way end with it, and begin
/// again at the next start. Who opens it adds it to the quotas' sources.
class Images : public quotas::StorageSource {
 public:
  static Result<std::unique_ptr<Images>> open(db::Database& db, accounts::Accounts& accounts,
                                              files::Files& files, accounts::Audit& audit, IdSource& ids,
                                              const Clock& clock, Options options);

  /// The image a user means by `text`: an id, `name`, `name:tag`, `host`; "" is `host`. Their own and public
  /// ones; an administrator's may be anybody's, by id. Errors name `field`: not_found, or
  /// failed_precondition for one that was never imported or whose import failed.
  virtual Result<ImageRef> resolve(std::string_view user_id, bool admin, std::string_view text,
                                   std::string_view field) = 0;
  /// The OCI image layout on this machine: `DIR/blobs/sha256/…`.
  virtual std::string layout_path() const = 0;

  /// The image whose OCI manifest is `digest` (of an ImageRef that is ready) as a tar for `docker load` or
  /// `podman load`. `name` is what it will be called there ("lathe.local/dzq/45:1.0"); empty: nothing, it is
  /// known by its id. not_found once the image is gone.
  virtual Result<std::unique_ptr<Export>> open_export(std::string_view digest, std::string_view name) = 0;

  /// Asked inside the transaction that would delete an image (then `tag` is empty) or one of its tags; an
  /// error refuses and says what uses it. Called at start, before the first request.
  using DeletionGuard =
      std::function<Result<void>(db::Transaction& tx, std::string_view image_id, std::string_view tag)>;
  virtual void guard_deletion(DeletionGuard guard) = 0;
  /// Manifests, by digest, that something will run again without looking for its tag: they stay when no tag
  /// leads to them any more. Asked in transactions, for as long as the images live. Called at start.
  using Uses = std::function<std::vector<std::string>(db::Transaction& tx)>;
  virtual void add_uses(Uses uses) = 0;
  /// Everybody has told their uses: what no tag leads to is removed, in its time, from here on.
  virtual void uses_are_told() = 0;
  /// Called on an import's thread when an image has become ready or its import has failed, so that who waits
  /// for it looks again. Said before `start`.
  virtual void on_change(std::function<void(std::string_view image_id)> changed) = 0;

  /// Begins the imports, those that were under way again: they ask the quotas' sources and call those who
  /// wait, who must all be known by then.
  virtual Result<void> start() = 0;
  /// Ends them. Before the quotas' sources end.
  virtual void stop() = 0;

  /// The OCI registry at /v2/ (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md), for
  /// http::Mounts. Must end before the Images.
  virtual Result<std::unique_ptr<http::Handler>> make_registry(RegistryOptions options) = 0;

  /// 2.1 to 2.3, /api/v1/images.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::images
