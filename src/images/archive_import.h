#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "images/archive.h"
#include "images/blob_store.h"
#include "images/contents.h"

namespace lathe::images {

struct ImportRequest {
  Fd file;
  std::string tag;  ///< picks the image where the archive holds several
  ArchiveLimits limits;
  /// Told the bytes of the archive read so far; false ends the import (cancelled).
  std::function<bool(std::uint64_t)> progress;
  /// Asked before bytes that are new to the store are written; an error ends the import.
  std::function<Result<void>(std::uint64_t bytes)> reserve;
  /// What an earlier attempt with the same file has brought into the store, by the entries' names: neither
  /// read nor written again.
  std::map<std::string, Blob, std::less<>> finished;
  /// Told of every large entry once it is in the store, durably, and held by the lease; an error ends the
  /// import.
  std::function<Result<void>(std::string_view name, const Blob& blob)> on_finished;
};

/// Takes a docker-archive (`docker save`, `podman save`) or an OCI archive into the store in one pass: every
/// entry is hashed while it is read, and written only if the store may not have it. Large entries go into the
/// store as they end, so that an import that is cut short goes on after them; nobody sees them before the
/// image is named. Everything is checked: digests, layers against the configuration, sizes. When this
/// returns, the blobs are durable and held by `lease`; after an error what came into the store is for
/// collection. Errors are invalid_argument with the reason for the archive's user, cancelled,
/// storage_exhausted, or internal.
Result<Contents> import_archive(BlobStore& store, BlobStore::Lease& lease, ImportRequest request);

}  // namespace lathe::images
