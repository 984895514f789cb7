#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "images/contents.h"
#include "images/pull/remote.h"
#include "images/uploads.h"

namespace lathe::images::pull {

struct Request {
  RemoteName name;
  Credentials credentials;
  std::string user_id;                  ///< whose image it becomes
  std::uint64_t max_bytes = 0;          ///< of all its layers
  Duration retry{1000};                 ///< before the second attempt; then twice as long each time
  std::function<bool()> go_on;          ///< asked often; false ends it (cancelled)
  std::function<bool(Duration)> pause;  ///< waits; false: it is time to end
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
  /// May the user have these bytes from the store? Knowing a digest is not enough for that.
  std::function<Result<bool>(const Blob&)> owned;
  /// Told of every blob that is in the store now, durably, and held by the lease.
  std::function<Result<void>(const Blob&)> arrived;
};

/// Takes an image of another registry into the store: of an index, the one for this machine. Blobs that the
/// user has already are not fetched; of the others every byte is hashed as it arrives. What breaks off goes
/// on where it was, also after the server's end: the bytes wait among the uploads (for another attempt of the
/// same user, whatever the image). When this returns everything is durable and held by `lease`. Errors tell
/// the user why.
Result<Contents> pull_image(BlobStore& store, Uploads& uploads, BlobStore::Lease& lease, Fetcher& fetcher,
                            const Rules& rules, const Request& request);

}  // namespace lathe::images::pull
