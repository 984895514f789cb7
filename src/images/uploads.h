#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "files/files.h"
#include "images/blob_store.h"

namespace lathe::images {

namespace store {
struct UploadRow;
}

/// Blobs that clients push, piece by piece, possibly over several requests and several runs of the server:
/// hashed while they are written. Safe from any thread.
class Uploads {
 public:
  /// Takes up what was under way when the server ended. The references must outlive it.
  static Result<std::unique_ptr<Uploads>> open(db::Database& db, files::Files& files, BlobStore& store,
                                               IdSource& ids, const Clock& clock);

  struct State;
  /// One upload, for one thread at a time: others wait for it as long as this lives.
  class Held {
   public:
    Held(Held&&) noexcept = default;
    Held& operator=(Held&&) noexcept = default;
    ~Held();
    const std::string& id() const;
    std::uint64_t size() const;
    /// Takes the body in up to its end. What came before an error stays, and the client may go on from there.
    /// Errors: the body's own; storage_exhausted.
    Result<void> append(http::BodyReader& body);
    /// The same with bytes at hand. `settle` is called before a longer pause, and at the end.
    Result<void> append(std::string_view bytes);
    void settle();
    /// Puts the bytes into the store, durably, where `lease` holds them. The upload is over, also when they
    /// are not what `digest` says (invalid_argument about `digest`).
    Result<Blob> finish(std::string_view digest, BlobStore::Lease& lease);
    Result<void> cancel();

   private:
    friend class Uploads;
    Result<void> take(http::BodyReader& body);
    Held(Uploads& uploads, std::shared_ptr<State> state) : uploads_(&uploads), state_(std::move(state)) {}
    Uploads* uploads_;
    std::shared_ptr<State> state_;
  };

  /// A new one, for the image `name` of `user_id`. resource_exhausted where they have very many already.
  Result<Held> begin(const std::string& user_id, const std::string& name);
  /// not_found about `upload` if there is none of that id for that image; unavailable while another request
  /// works on it for long.
  Result<Held> find(const std::string& id, std::string_view user_id, std::string_view name);
  /// The one that waits under that name; nothing where there is none, or somebody is at work on it.
  Result<std::optional<Held>> find_named(const std::string& user_id, const std::string& name);
  /// Counts bytes that are about to be the user's, as long as what is returned lives.
  Result<std::unique_ptr<files::Reservation>> reserve(const std::string& user_id, std::uint64_t bytes);
  /// Removes those that nobody has touched since.
  Result<void> drop_expired(Time before);

 private:
  Uploads(db::Database& db, files::Files& files, BlobStore& store, IdSource& ids, const Clock& clock)
      : db_(db), files_(files), store_(store), ids_(ids), clock_(clock) {}
  Result<void> clean();
  /// Waits for whoever works on it. not_found if it ended meanwhile; unavailable.
  Result<Held> hold(const store::UploadRow& row);
  Result<void> open_file(State& state);
  Result<void> read_again(State& state, int fd);
  Result<void> touch(State& state);
  Result<void> remove(State& state);

  db::Database& db_;
  files::Files& files_;
  BlobStore& store_;
  IdSource& ids_;
  const Clock& clock_;
  Directory folder_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::map<std::string, std::shared_ptr<State>, std::less<>> known_;
};

}  // namespace lathe::images
