#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/contents.h"

namespace lathe::images::registry {

/// A manifest that a client pushes, read and checked by itself; the store has not been asked yet.
struct PushedManifest {
  Contents contents;  ///< `size` is the sum of what it names; blobs[0] is the manifest
  /// Blobs that the repository must have (layers that are to be fetched from elsewhere are not among them).
  std::vector<Blob> needed;
  /// Of an index: manifests that the repository must have.
  std::vector<std::string> children;
};

/// `media_type` is the request's Content-Type. Errors are invalid_argument about `manifest`.
Result<PushedManifest> read_manifest(std::string_view document, std::string_view media_type);

}  // namespace lathe::images::registry
