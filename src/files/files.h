#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "accounts/accounts.h"
#include "base/directory.h"
#include "quotas/quotas.h"

/// The users' files, on this machine's disk:
///
///     DATA/users/ID/private    only its user (and administrators) and that user's jobs see it
///     DATA/users/ID/public     every user may read it; its user and administrators write it
///     DATA/users/.staging      uploads under way, on the same file system, so that publishing is a rename
namespace lathe::files {

enum class Scope { private_files, public_files };
/// "private", "public": the words of requests and rows.
inline std::string_view name(Scope scope) {
  return scope == Scope::private_files ? "private" : "public";
}
inline Scope scope_named(std::string_view name) {
  return name == "public" ? Scope::public_files : Scope::private_files;
}

/// Whom a request to read or write files is about, and which of their two roots.
struct Root {
  std::string user_id;
  Scope scope = Scope::private_files;
};

struct Options {
  std::string users_directory;  ///< DATA/users; made where absent
  /// Whom files belong to: the account that jobs run under. Unset: the server's own.
  std::optional<Owner> owner;
  Duration usage_interval{std::chrono::minutes{10}};  ///< between two walks of all users' files
  Duration upload_lifetime{
      std::chrono::hours{24}};                    ///< of an unfinished resumable upload, from its last byte
  std::uint64_t upload_checkpoint = 64ULL << 20;  ///< bytes after which a resumable upload is made durable
  std::size_t max_parts = 100'000;                ///< files in one multipart request
};

/// Bytes and inodes of a user's that are about to exist: counted as used while this lives, so that uploads
/// at the same time cannot together exceed the quota. What is committed stays counted.
class Reservation {
 public:
  virtual ~Reservation() = default;
  /// Takes more; storage_exhausted, saying used and allowed, where the quota does not allow it.
  virtual Result<void> grow(std::int64_t bytes, std::int64_t inodes) = 0;
  /// So much exists now (negative: it replaced more than it brought). The rest is given back.
  virtual void commit(std::int64_t bytes, std::int64_t inodes) = 0;
};

/// Safe from any thread. References given to `open` must outlive it. Who opens it adds it to the quotas'
/// sources.
class Files : public quotas::StorageSource {
 public:
  /// Finishes or removes what uploads were under way when the server ended, and starts counting usage in the
  /// background.
  static Result<std::unique_ptr<Files>> open(db::Database& db, accounts::Accounts& accounts,
                                             quotas::Quotas& quotas, accounts::Audit& audit, IdSource& ids,
                                             const Clock& clock, Options options);

  /// A user's root, opened; made where absent. `user_id` must be an account's id.
  virtual Result<Directory> root(const Root& root) = 0;
  /// Where that is on this machine, for mounts into sandboxes. Only after root() has made it.
  virtual std::string host_path(const Root& root) const = 0;
  /// The account that jobs run under and files belong to.
  virtual std::optional<Owner> owner() const = 0;

  /// Starts to count bytes that will be written into a user's files (or, for images and models, beside them).
  virtual Result<std::unique_ptr<Reservation>> reserve(std::string_view user_id) = 0;
  /// A job of this user's has ended: count its files again soon.
  virtual void recount(std::string_view user_id) = 0;
  /// Counts one user's files now.
  virtual Result<quotas::Storage> count_now(std::string_view user_id) = 0;

  /// 1.1, 1.2, /api/v1/files, /api/v1/folders, /api/v1/uploads.
  virtual void add_routes(http::Api& api) = 0;
};

}  // namespace lathe::files
