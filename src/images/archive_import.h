#pragma once

#include <cstdint>
#include <functional>
#include <string>
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
};

/// Takes a docker-archive (`docker save`, `podman save`) or an OCI archive into the store in one pass: every
/// entry is hashed while it is read, and written only if the store may not have it. Everything is checked
/// before anything is kept: digests, layers against the configuration, sizes. When this returns, the blobs
/// are durable and held by `lease`; after an error nothing of it can be seen (at most a manifest that nobody
/// names waits for the next collection). Errors are invalid_argument with the reason for the archive's user,
/// cancelled, storage_exhausted, or internal.
Result<Contents> import_archive(BlobStore& store, BlobStore::Lease& lease, ImportRequest request);

}  // namespace lathe::images
